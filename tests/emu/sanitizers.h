/* SPDX-License-Identifier: Apache-2.0 */
/* RA_ASAN is defined where the address sanitizer is on: gcc and clang say so in different words. */
#ifndef RA_TESTS_EMU_SANITIZERS_H
#define RA_TESTS_EMU_SANITIZERS_H

#ifdef __SANITIZE_ADDRESS__
#define RA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RA_ASAN 1
#endif
#endif

#endif
