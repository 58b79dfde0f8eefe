/* SPDX-License-Identifier: MIT */
/*
 * The C library of 64-bit x86 takes BPF for a 32-bit machine and asks for this header, which is only there where
 * programs for 32 bits can be built. It would name functions that are missing from the library: none is called.
 */
