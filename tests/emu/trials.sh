#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Are the kernels' tests strict? Each trial spoils one thing in a copy of a kernel's sources: deletes a
# barrier, makes a shared array an element shorter, or makes an edit of the table below. Some test
# must fail then, in order or in a shuffled schedule, or under the address sanitizer. A line a trial;
# the last line: N passed (caught), N failed (survived), N skipped.
#     trials.sh [PATTERN]   of the trials only those whose FILE:LINE WHAT matches
# $B is the build folder with all of build-emu in it; CXX, CXXFLAGS, EMU_OBJ and LINK are the build's.
set -u
ulimit -c 0 # faults abort
pattern=${1:-.}
work=build/trials
mkdir -p "$work"
export work B CXX CXXFLAGS EMU_OBJ LINK

# --- what is tried: FILE|LINE|WHAT|EDIT of that line (sed) or EDIT of all ----------------------------
cuda=(kernels/cuda/*.cu kernels/cuda/*.cuh)

list() {
    local call
    for call in __syncthreads __threadfence; do
        grep -n "^ *$call();" "${cuda[@]}" |
            awk -F: -v call=$call '{ printf "%s|%d|no %s|%ds/%s();/;/\n", $1, $2, call, $2, call }'
    done
    grep -n '^ *RA_SHARED(' "${cuda[@]}" | while IFS=: read -r file line text; do
        name=${text#*, } name=${name%%,*}
        echo "$file|$line|$name one shorter|${line}s/);\$/ - 1);/"
    done
    while IFS='|' read -r file what find edit; do
        line=$(grep -n -m 1 -- "$find" "$file" | cut -d: -f1)
        echo "$file|${line:-0}|$what|${edit//@/${line:-0}}"
    done <<'TABLE'
kernels/cuda/decode.cuh|dynamic memory 16 bytes less|kStages \* 2 \* R \* RA_DECODE_THREADS \* 16;|@s/;$/ - 16;/
kernels/cuda/score.cuh|dynamic memory 16 bytes less|kStages \* R \* RA_DECODE_THREADS \* 16;|@s/;$/ - 16;/
kernels/cuda/select.cu|dynamic memory 16 bytes less|const size_t shared =|@s/;$/ - 16;/
kernels/cuda/order.cu|dynamic memory 16 bytes less|size_t shared = sorted|@s/sizeof(uint64_t)/& - 16/
kernels/cuda/refresh.cuh|dynamic memory 16 bytes less|return 4 \* (2 \* words|@s/;$/ - 16;/
kernels/cuda/backend_cache.cu|dynamic memory 16 bytes less|ra_plan_shared(cuda->cap|@s/cuda->cap)/& - 16/
kernels/cuda/select.cu|of equal keys not the first|x.x == least && equal < equals|@s/equal < equals/equal > 0 \&\& equal <= equals/
kernels/cuda/select.cu|a lane's keys listed backwards|to++, (above < most|@s/to++/to + --mine/
kernels/cuda/order.cu|of equal keys the lower position first|key << 32 . ~position|s/| ~position/| position/;s/(int32_t) ~(uint32_t)/(int32_t)(uint32_t)/
kernels/cuda/rows.cuh|a shut gate lets all in|return !rows.gate|@s/!rows.gate/true/
kernels/cuda/rows.cuh|rows all in line|if (rows.group == 0)|@s/rows.group == 0/true/
kernels/cuda/refresh.cu|rows moved behind a shut gate|ra_row_of(a.rows, blockIdx.y)|@,+1s/!ra_is_served(a.rows, row)/false/
kernels/cuda/refresh.cu|lists of other rows|given = blockIdx.x|@s/given = blockIdx.x/given = ra_row_of(a.rows, blockIdx.x)/
kernels/cuda/select.cu|scratch of other rows|own_row = blockIdx.y|@s/own_row = blockIdx.y/own_row = ra_row_of(a.rows, blockIdx.y)/
kernels/cuda/refresh.cu|entries copied again forgotten|n_old - n, note|@s/n_old - n/0/
kernels/cuda/refresh.cu|a given score is not taken|if (a.given)|@s/a.given/false/
kernels/cuda/accumulate.cu|scores always added|a.keeps ? ra_ld|@s/a.keeps/true/
kernels/cuda/accumulate.cu|scores never added|a.keeps ? ra_ld|@s/a.keeps/false/
kernels/cuda/accumulate.cu|self weighed twice|if (i > n|@s/ && self_in/ \&\& false/
kernels/cuda/cut.cu|of equal scores the lower position|at > position|@s/at > position/at < position/
kernels/cuda/cut.cu|one more is recent|wanted = recent - 1|@s/wanted = recent - 1/wanted = recent/
kernels/cuda/cut.cu|the newest are looked for in line alone|high - low > 1|@s/high - low > 1/false/
kernels/cuda/cut.cu|slots of all rows alike|ra_ld(slots + j) != position|@s/!= position/!= position \&\& false/
kernels/cuda/cut.cu|nobody else goes|instead >= 0 ? instead|@s/instead >= 0/false/
kernels/cuda/cut.cu|dynamic memory 16 bytes less|size_t shared = |@s/;$/ - 16;/
kernels/cuda/digest.cu|a page begun anew by each row|if (begin > first) {|@s/begin > first/false/
kernels/cuda/digest.cu|a page goes on from an earlier life|if (begin > first) {|@s/begin > first/true/
kernels/cuda/digest.cu|rows beyond those in pages|end = ra_paged(n, a.most)|@s/ra_paged(n, a.most)/n/
kernels/cuda/digest.cu|a mean over a page cut short|held = left < a.page|@s/left < a.page ? left/false ? left/
kernels/cuda/digest.cu|the first not wanted|i == 0 .. a.takes_first|@s/i == 0/false/
kernels/cuda/digest.cu|the newest not wanted|i == n - 1 |@s/i == n - 1/false/
kernels/cuda/order.cu|all in another order|(uint32_t)i;|@s/(uint32_t)i;/(uint32_t)(n - i);/
kernels/cuda/backend_attend.cu|no gate|call.branch == RA_BRANCH_NONE|@s/call.branch == RA_BRANCH_NONE/true/
kernels/cuda/backend_call.cu|a copy's calls out of order|is_first = next.first|@s/next.first != copy/true/
kernels/cuda/decode.cuh|K read twice|ra_cp_async16_zfill(slot + r \* 32|@p
kernels/cuda/score.cuh|K read twice|ra_cp_async16_zfill(slot + r \* 32|@p
TABLE
}

# --- what an edit reaches: sources to compile again, and the tests that should see it -----------------
# One type of a template suffices: tests of the others pass or not as before.
reach() { # FILE
    case $1 in
    */decode*.cuh) sources=tests/emu/test_decode.cu tests=test_decode ;;
    */score.cuh) sources=kernels/cuda/score_f16.cu tests=test_score ;;
    */select.cu | */order.cu) sources=$1 tests="test_select test_rows test_digest" ;;
    */refresh.cu) sources=$1 tests="test_refresh test_rows test_backend" ;;
    */accumulate.cu | */cut.cu) sources=$1 tests=test_accumulate ;;
    */rows.cuh) sources="kernels/cuda/select.cu kernels/cuda/order.cu kernels/cuda/refresh.cu" tests=test_rows ;;
    */backend_attend.cu | */backend_call.cu) sources=$1 tests=test_backend_record ;;
    */refresh.cuh) sources=tests/emu/test_refresh.cu tests=test_refresh ;;
    */digest.cu) sources=$1 tests=test_digest ;;
    */backend_scores.cu) sources=$1 tests="test_backend test_backend_scores" ;;
    */backend*.cu) sources=$1 tests=test_backend ;;
    */vec.cuh) sources="kernels/cuda/select.cu kernels/cuda/refresh.cu" tests="test_select test_refresh" ;;
    *) sources='' tests='' ;;
    esac
}

# The test program $2 in $1, of what was compiled again there and the rest as it is in $B.
link() { # FOLDER TEST
    local object objects=() main=$B/emu/tests/emu/$2.cu.o
    [ -e "$main" ] || main="$B/tests/emu/$2.o $(echo "$B"/tests/support/[!f]*.o)" # a test in C
    [ -e "$1/tests/emu/$2.cu.o" ] && main=$1/tests/emu/$2.cu.o
    for object in "$B"/emu/kernels/cuda/*.o; do
        [ -e "$1/kernels/cuda/${object##*/}" ] && object=$1/kernels/cuda/${object##*/}
        objects+=("$object")
    done
    # shellcheck disable=SC2086 # lists
    $CXX $CXXFLAGS -o "$1/$2" $EMU_OBJ $main "${objects[@]}" $LINK
}

try() { # NUMBER FILE|LINE|WHAT|EDIT
    local file line what edit sources tests source test seed folder=$work/$1 how=SURVIVED status
    IFS='|' read -r file line what edit <<<"$2"
    reach "$file"
    rm -rf "$folder"
    mkdir -p "$folder/tests" "$folder/kernels"
    cp -r kernels/cuda "$folder/kernels/"
    mkdir -p "$folder/tests/emu"
    cp tests/emu/*.cu "$folder/tests/emu/"
    sed -i -e "$edit" "$folder/$file"
    if cmp -s "$file" "$folder/$file" || [ -z "$tests" ]; then
        how="SURVIVED: nothing to edit, or no test known"
        tests=""
    fi
    for source in ${tests:+$sources}; do
        # shellcheck disable=SC2086 # a list
        $CXX -I"$folder" $CXXFLAGS -DRA_FEW -O1 -g0 -w -c -o "$folder/$source.o" -x c++ "$folder/$source" || {
            how="SURVIVED: does not compile" tests=
        }
    done
    for test in $tests; do
        link "$folder" "$test" || { how="SURVIVED: does not link" && break; }
        for seed in 0 1 2 3; do
            { RA_EMU_SEED=$seed timeout 300 "$folder/$test" >"$folder/log" 2>&1; } 2>/dev/null
            status=$?
            [ $status -eq 0 ] || { how="caught by $test seed $seed" && break 2; }
        done
    done
    echo "$file:$line, $what: $how"
    rm -rf "$folder"
}

export -f try link reach
log=$work/log
# What fails unspoiled would catch anything.
# shellcheck disable=SC2016 # the inner shell expands
printf '%s\n' test_{accumulate,decode,digest,score,select,refresh,rows,backend,backend_record,backend_scores}\ {0,1,2,3} | xargs -P 2 -L 1 bash -c \
    'RA_EMU_SEED=$1 "$B/emu/$0" >"$work/$0.$1" 2>&1 || { echo "$0 with seed $1 fails unspoiled"; exit 255; }' ||
    exit 1
mapfile -t trials < <(list | awk -F'|' -v wanted="$pattern" '$1 ":" $2 " " $3 ~ wanted')
for i in "${!trials[@]}"; do
    printf '%s\0' "$i" "${trials[i]}"
done | xargs -0 -r -n 2 -P 2 bash -c 'try "$@"' _ | tee "$log"
passed=$(grep -c ': caught by ' "$log") failed=$(grep -c ': SURVIVED' "$log")
skipped=$((${#trials[@]} - passed - failed))
echo "$passed passed, $failed failed, $skipped skipped"
[ "$passed" -gt 0 ] && [ "$passed" -eq ${#trials[@]} ]
