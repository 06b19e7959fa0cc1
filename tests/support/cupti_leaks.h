/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For a program that loads CUPTI under the address sanitizer, included once: CUPTI keeps what it
 * made for a chip it then refuses, and the search for leaks crashes on its thread storage; without
 * that it takes what the loader keeps there for leaks. For the command line the same stands in
 * tests/support/cupti.supp.
 */
#ifndef RA_TESTS_SUPPORT_CUPTI_LEAKS_H
#define RA_TESTS_SUPPORT_CUPTI_LEAKS_H

#ifdef __SANITIZE_ADDRESS__
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "use_tls=0:print_suppressions=0";
}

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libcupti.so\nleak:libnvperf_host.so\nleak:ld-linux\nleak:_dlerror_run\n";
}
#endif

#endif
