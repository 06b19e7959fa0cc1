/* SPDX-License-Identifier: Apache-2.0 */
/* Spellings of policies: what is refused and with which words, and the one canonical form. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/policy.h"
#include "tests/support/ra_test.h"

#define TAIL                                                                                       \
    "pool=7,agg=max,current=pseudo,evict=pooled,attend=before,query=pre,scope=layer,share=none,"   \
    "stagger=0"

static void test_canonical(void **state)
{
    (void)state;
    static const struct {
        const char *given, *canonical;
    } rows[] = {
        {"full", "full"},
        {"oracle:k=2/16", "oracle:k=1/8"},
        {"streaming:k=64", "streaming:k=64,sinks=4,stride=none"},
        {"streaming:stride=7,sinks=0,k=001", "streaming:k=1,sinks=0,stride=7"},
        {"recycled:k=256,stride=16", "recycled:k=256,stride=16,sim=none," TAIL},
        {"recycled:stride=16,stagger=0,k=4/4", "recycled:k=1/1,stride=16,sim=none," TAIL},
        {"recycled:k=9,stride=5,sim=.85", "recycled:k=9,stride=5,sim=0.85," TAIL},
        {"recycled:k=9,stride=5,sim=0.1000000000000000055511", /* the f64 nearest 0.1 */
         "recycled:k=9,stride=5,sim=0.1," TAIL},
        {"recycled:k=9,stride=5,sim=0.30000000000000004",
         "recycled:k=9,stride=5,sim=0.30000000000000004," TAIL},
        {"recycled:k=9,stride=5,sim=-1e300", "recycled:k=9,stride=5,sim=-1e300," TAIL},
        {"recycled:k=9,stride=5,sim=-0.0", "recycled:k=9,stride=5,sim=0," TAIL},
        {"recycled:k=9,stride=5,sim=2.5e-9", "recycled:k=9,stride=5,sim=2.5e-09," TAIL},
        {"recycled:k@4-7=32,stride=16,k=256,k@0-3=1024",
         "recycled:k=256,k@0-3=1024,k@4-7=32,stride=16,sim=none," TAIL},
        {"recycled:k=256,k@2-2=8,stride=16,stride@1=2,sim=none",
         "recycled:k=256,k@2=8,stride=16,stride@1=2,sim=none," TAIL},
        /* two spellings of one meaning */
        {"recycled:k=9,k@0-3=9,k@5=4,k@6-7=4,stride=5",
         "recycled:k=9,k@5-7=4,stride=5,sim=none," TAIL},
        /* KV heads: after their layers' values, joined where they go on. */
        {"recycled:k=9,k@2.1=4,k@0-3=5,stride=5",
         "recycled:k=9,k@0-3=5,k@2.1=4,stride=5,sim=none," TAIL},
        {"recycled:k=9,k@1.0=4,k@1.1=4,k@2.0-1=4,stride=5",
         "recycled:k=9,k@1-2.0-1=4,stride=5,sim=none," TAIL},
        {"recycled:k=9,k@3.0=9,stride=5", "recycled:k=9,stride=5,sim=none," TAIL},
        {"recycled:k=9,k@3=5,k@3.0=9,stride=5",
         "recycled:k=9,k@3=5,k@3.0=9,stride=5,sim=none," TAIL},
        {"recycled:k=9,k@0=4,k@2=4,stride=5", "recycled:k=9,k@0=4,k@2=4,stride=5,sim=none," TAIL},
        {"recycled:k=9,stride=5,share=2/14,current=snapkv",
         "recycled:k=9,stride=5,sim=none,pool=7,agg=max,current=snapkv,evict=pooled,attend=before,"
         "query=pre,scope=layer,share=2/14,stagger=0"},
        {"full+int8", "full+int8"},
        {"streaming:k=64+kvquant:nuq=0+fp8", "streaming:k=64,sinks=4,stride=none+kvquant:bits=2,"
                                             "outliers=0.01,keys=channel,values=token,nuq=0,"
                                             "levels=channel,weights=root,scale=channel,sweeps=3,"
                                             "ahead=256,damp=0.5+"
                                             "fp8:format=e4m3"},
    };
    struct ra_policy_spec *spec;
    struct ra_error err;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ra_assert_ok(ra_policy_parse(&spec, rows[i].given, &err));
        assert_string_equal(ra_policy_spec_canonical(spec), rows[i].canonical);
        ra_policy_spec_close(spec);
        ra_assert_ok(ra_policy_parse(&spec, rows[i].canonical, &err));
        assert_string_equal(ra_policy_spec_canonical(spec), rows[i].canonical);
        ra_policy_spec_close(spec);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *given, *message;
    } rows[] = {
        {"", "no policy named ''; known are full, recycled, "},
        {"attention", "no policy named 'attention'; known are full, recycled, "},
        {"recyled:k=1,stride=2", "no policy named 'recyled'; nearest is 'recycled'"},
        {"Recycled:k=1,stride=2", "nearest is 'recycled'"},
        {" full", "no policy named ' full'; nearest is 'full'"},
        {"steraming:k=9", "nearest is 'streaming'"},
        {"full:", "full: expected key=value, got ''"},
        {"full:k=3", "full: takes no parameters, got 'k'"},
        {"oracle", "oracle: k must be given"},
        {"recycled", "recycled: k must be given"},
        {"recycled:k=8", "recycled: stride must be given"},
        {"recycled:k@0-3=8,stride=2", "recycled: k must be given"},
        {"recycled:k=8,strid=2", "recycled: no parameter named 'strid'; nearest is 'stride'"},
        {"recycled:k=8,STRIDE=2", "no parameter named 'STRIDE'; known are k, stride, "},
        {"recycled:k=8,window=2", "no parameter named 'window'; known are k, stride, "},
        {"recycled:k=8,stride=2,", "recycled: expected key=value, got ''"},
        {"recycled:k=8,,stride=2", "recycled: expected key=value, got ''"},
        {"recycled:k=8,stride", "recycled: expected key=value, got 'stride'"},
        {"recycled:k=8,stride=2,k=8", "recycled: k: expected once, got it again as '8'"},
        {"recycled:k=0,stride=2", "recycled: k: expected a whole number of at least 1 or a share "},
        {"recycled:k=-3,stride=2", "got '-3'"},
        {"recycled:k=0/8,stride=2", "got '0/8'"},
        {"recycled:k=1/0,stride=2", "got '1/0'"},
        {"recycled:k=1/,stride=2", "got '1/'"},
        {"recycled:k=1/2/3,stride=2", "got '1/2/3'"},
        {"recycled:k=1.5,stride=2", "got '1.5'"},
        {"recycled:k=2147483648,stride=2", "got '2147483648'"},
        {"recycled:k=99999999999999999999,stride=2", "got '99999999999999999999'"},
        {"recycled:k=8,stride=0", "recycled: stride: expected a whole number of at least 1, got"},
        {"recycled:k=8,stride=none", "recycled: stride: expected"},
        {"recycled:k=8,stride= 2", "got ' 2'"},
        {"recycled:k=8,stride=0x10", "got '0x10'"},
        {"recycled:k=8,stride=", "got ''"},
        {"recycled:k=8,stride=2,sim=nan", "sim: expected a finite number or none, got 'nan'"},
        {"recycled:k=8,stride=2,sim=inf", "got 'inf'"},
        {"recycled:k=8,stride=2,sim=1e999", "got '1e999'"},
        {"recycled:k=8,stride=2,sim=0x1p3", "got '0x1p3'"},
        {"recycled:k=8,stride=2,sim=0.9f", "got '0.9f'"},
        {"recycled:k=8,stride=2,sim=.", "got '.'"},
        {"recycled:k=8,stride=2,sim=1e", "got '1e'"},
        {"recycled:k=8,stride=2,pool=6", "recycled: pool: expected an odd number, got 6"},
        {"recycled:k=8,stride=2,pool=1025", "pool: expected a whole number from 1 to 1023"},
        {"recycled:k=8,stride=2,agg=maxx",
         "agg: expected max, mean, first or sum, got 'maxx'; nearest is 'max'"},
        {"recycled:k=8,stride=2,agg=", "got ''"},
        {"recycled:k=8,stride=2,agg=max|mean", "got 'max|mean'"},
        {"recycled:k=8,stride=2,share=2//3", "got '2//3'"},
        {"recycled:k=8,stride=2,share=3/2", "share: expected ascending whole numbers from 0 to"},
        {"recycled:k=8,stride=2,share@1=2", "share is one for all layers, got share@1"},
        {"recycled:k=8,stride=2,sim=0,scope=model-prev,stagger=1", "stagger: expected 0"},
        {"recycled:k=8,k@=4,stride=2",
         "k@: expected layers like 2 or 0-3, or KV heads of them like 0-3.1, got ''"},
        {"recycled:k=8,k@3-1=4,stride=2", "got '3-1'"},
        {"recycled:k=8,k@1-=4,stride=2", "got '1-'"},
        {"recycled:k=8,k@4096=4,stride=2", "got '4096'"},
        {"recycled:k=8,k@0-3=4,k@3=5,stride=2", "k: layer 3 is given two values"},
        {"recycled:k=8,k@0-3.1=4,k@3.0-2=5,stride=2", "k: layer 3 is given two values"},
        {"recycled:k=8,k@1.=4,stride=2", "got '1.'"},
        {"recycled:k=8,stride=2,stride@1.0=3",
         "stride is one for all KV heads of a layer, got stride@1.0"},
        {"snapkv:k=40,k@1.0=32", "k: expected more than window=32, got 32"},
        {"recycled:k=8,pool@2=4,stride=2", "layer 2: recycled: pool: expected an odd number"},
        {"streaming:k=4", "streaming: k: expected more than sinks=4, got 4"},
        {"streaming:k=9,stride@3=2", "layer 3 would keep other caches than layer 0"},
        {"recycled:k=8,stride=2+kvqunt:bits=2",
         "no transformation named 'kvqunt', which comes after '+'; nearest is 'kvquant'"},
        {"full+", "no transformation named '', which comes after '+'"},
        {"nothing+kvquant", "no policy named 'nothing'"},
        {"full\x1b[31m", "no policy named 'full?[31m'"},
    };
    struct ra_policy_spec *spec;
    struct ra_error err;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ra_assert_fails(ra_policy_parse(&spec, rows[i].given, &err), RA_EUSAGE, rows[i].message);
        assert_null(spec);
    }
}

/* Long texts are refused before anything is made of them, and so are long canonical ones. */
static void test_length(void **state)
{
    (void)state;
    struct ra_policy_spec *spec;
    struct ra_error err;
    static char text[5000];
    memset(text, 'k', sizeof text - 1);
    ra_assert_fails(ra_policy_parse(&spec, text, &err), RA_EUSAGE, "at most 1024 characters");
    int used = snprintf(text, sizeof text, "recycled:k=8,stride=2");
    for (int layer = 0; layer < 250 && used < 1010; layer += 2)
        used += snprintf(text + used, sizeof text - (size_t)used, ",k@%d=4", layer);
    ra_assert_fails(ra_policy_parse(&spec, text, &err), RA_EUSAGE,
                    "at most 1024 characters with all parameters");
    used = snprintf(text, sizeof text, "recycled:k=8,stride=2,share=0");
    for (int layer = 1; layer < 65; layer++)
        used += snprintf(text + used, sizeof text - (size_t)used, "/%d", layer);
    ra_assert_fails(ra_policy_parse(&spec, text, &err), RA_EUSAGE, "share: expected");
    ra_policy_spec_close(NULL);
}

static void test_properties(void **state)
{
    (void)state;
    struct ra_policy_spec *spec;
    struct ra_error err;
    static const struct {
        const char *given;
        unsigned needs;
        enum ra_caches caches;
        int32_t k; /* for P = 100 */
    } rows[] = {
        {"full", 0, RA_CACHES_FULL, -1},
        {"oracle:k=1/3", RA_NEEDS_TRUTH, RA_CACHES_FULL, 33},
        {"streaming:k=10", 0, RA_CACHES_REDUCED, 10},
        {"streaming:k=10,stride=3", 0, RA_CACHES_BOTH, 10},
        {"recycled:k=1/1000,stride=3", 0, RA_CACHES_BOTH, 1},
        {"recycled:k=5,stride=3,sim=0.9", RA_NEEDS_QUERIES, RA_CACHES_BOTH, 5},
        {"recycled:k=5,stride=3,sim@7=0.9", RA_NEEDS_QUERIES, RA_CACHES_BOTH, 5},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ra_assert_ok(ra_policy_parse(&spec, rows[i].given, &err));
        assert_int_equal(ra_policy_spec_needs(spec), rows[i].needs);
        assert_int_equal(ra_policy_spec_caches(spec), rows[i].caches);
        assert_int_equal(ra_policy_spec_k(spec, 100), rows[i].k);
        ra_policy_spec_close(spec);
    }
}

/* Any bytes: an error or a canonical text that is a fixed point; never a crash. */
static void test_garbage(void **state)
{
    (void)state;
    static const char letters[] = "recycledfustaming:=,@-/+.0123456789kp|ee\x01\xff none";
    uint32_t random = 1;
    for (int i = 0; i < 20000; i++) {
        char text[80] = "recycled:k=8,stride=3,";
        size_t used = i % 3 ? strlen(text) : 0, n = (random >> 8) % 40;
        for (size_t j = 0; j < n; j++) {
            random = random * 1664525 + 1013904223;
            text[used + j] = letters[(random >> 16) % (sizeof letters - 1)];
        }
        text[used + n] = '\0';
        struct ra_policy_spec *spec, *again;
        struct ra_error err;
        if (ra_policy_parse(&spec, text, &err) != RA_OK)
            continue;
        ra_assert_ok(ra_policy_parse(&again, ra_policy_spec_canonical(spec), &err));
        assert_string_equal(ra_policy_spec_canonical(spec), ra_policy_spec_canonical(again));
        ra_policy_spec_close(spec);
        ra_policy_spec_close(again);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_length),    cmocka_unit_test(test_properties),
        cmocka_unit_test(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
