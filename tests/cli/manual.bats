#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The manual page: it renders without a warning, has every command, option and policy that the
# program has, every variable that the source reads, and examples that work.

load common

# Lines of the page as a reader sees them, of one section or of all.
page() {
    [ -s page.1 ] || "$rattn" help --man >page.1
    sed 's/\\f[BIR]//g; s/\\-/-/g; s/\\(aq/'"'"'/g; s/\\e/\\/g; s/^\.\(B\|I\|SS\) //' page.1
}
section() {
    page | sed -n "/^\.SH $1\$/,/^\.SH /p" | sed '1d;/^\.SH /d'
}
block() { # of a command or a policy, up to the next
    page >plain
    sed -n "/^\.SS ${1//-/\\\\-}\$/,/^\.S[SH] /=" page.1 | sed -n '1p;$p' | tr '\n' , | sed 's/,$/p/' >range
    sed -n -f range plain
}

@test "it renders without a warning, within 80 columns" {
    command -v groff >/dev/null || skip "needs groff"
    page >/dev/null
    run -0 --separate-stderr groff -ww -man -Tascii -P-cbou -rLL=80n page.1
    [ -z "$stderr" ]
    [[ ${lines[0]} == "RATTN-SIM(1)"* ]]
    [ -z "$(echo "$output" | awk 'length > 80')" ]
    if command -v mandoc >/dev/null; then # it has no date, so that a build gives the same bytes
        [ -z "$(mandoc -T lint page.1 | grep -v 'missing date')" ]
    fi
}

@test "it has the sections that a manual page has" {
    for name in NAME SYNOPSIS DESCRIPTION COMMANDS OPTIONS POLICIES "EXIT STATUS" ENVIRONMENT FILES EXAMPLES; do
        [ -n "$(section "$name")" ]
    done
    [[ $(section NAME) == "rattn-sim - "* ]]
}

@test "every command and every option that -h has is in it, with its default" {
    for command in $(commands); do
        [[ $(section SYNOPSIS) == *"rattn-sim $command"* ]]
        block "$command" >one
        [ -s one ]
        "$rattn" "$command" -h | sed -n '/^  /p' >help
        for option in $(grep -oE '^ +(-[a-z], )?--[a-z-]+' help | grep -oE -- '--[a-z-]+' | grep -vE -- '--(help|version)'); do
            grep -qE -- "^(-[a-z], )?$option( |\$)" one
        done
        # defaults may be broken over lines in both
        tr -s '\n ' ' ' <help | grep -oE 'default: [^) ]+' | sort >wanted
        tr -s '\n ' ' ' <one | grep -oE 'default: [^) ]+' | sort >got
        diff wanted got
    done
}

@test "every policy and parameter, with its default, is in it" {
    "$rattn" list policies --format json | json '"\n".join(p["name"] + " " + q["name"] + " " + str(q["default"]) for p in d for q in p["parameters"])' |
        while read -r policy name default; do
            block "$policy" | grep -x -A3 "$name" >one
            [ "$default" = None ] || tr '\n' ' ' <one | grep -qE "default: $default\)"
        done
}

@test "exit codes are those of the help, variables those that the source reads" {
    "$rattn" help | sed -n '/^Exit codes/,$p' | grep -oE '^ +[0-9]+' | tr -d ' ' | while read -r code; do
        section "EXIT STATUS" | grep -qx "$code"
    done
    for name in $(grep -rhoE 'getenv\("[A-Z_]+"' "$root"/sim "$root"/kernels "$root"/profiler "$root"/traces --include=*.c | grep -oE '[A-Z_]{2,}' | sort -u); do
        section ENVIRONMENT | grep -qx "$name"
    done
}

@test "its examples do what they say" {
    ln -s "$root/traces/data/smollm2-135m.safetensors" TRACE
    mkdir bin
    ln -s "$rattn" bin/rattn-sim
    # an indented line goes on from the one before
    section EXAMPLES | sed -n '/^\.RS/,/^\.RE/p' | grep -v '^\.R' | sed -z 's/\\\n//g' |
        sed 's/TRACE -p/TRACE --layers 9 --steps 0..3 -p/; s/--db/--repeat 1 --db/' >lines
    [ "$(wc -l <lines)" -ge 5 ]
    while read -r line; do
        case $line in
        *" plot "*) command -v gnuplot >/dev/null || continue ;;&
        *" compare "*) expected=4 ;;
        *) expected=0 ;;
        esac
        status=0
        PATH=$PWD/bin:$PATH sh -c "$line" </dev/null >out 2>err || status=$?
        [ "$status" = "$expected" ] || { echo "$line: $status"; cat err; false; }
        [ -s out ]
    done <lines
}
