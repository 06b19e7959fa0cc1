#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Completion in bash: what it offers for a line, and that it knows every command and option that the
# program has. The function is driven as bash does, its words cut at ':' and '='.

load common

# Offers for LINE with the cursor at its end, one a line; "+NAME" is a wish for readline to do more.
offers() {
    "$rattn" help --completion >completion.bash
    COMP_LINE=$1 bash --norc -c '
        COMP_WORDBREAKS=${BREAKS-$COMP_WORDBREAKS}
        compopt() { echo "+$2"; }
        complete() { [ "$*" = "-F _rattn_sim rattn-sim" ] || echo "registered: $*"; }
        . ./completion.bash
        COMP_POINT=${#COMP_LINE}
        # as readline cuts: a break character that stands alone is a word
        COMP_WORDS=() rest=$COMP_LINE
        [[ $COMP_WORDBREAKS == *:* ]] && set=":=" || set="#"
        while [[ $rest =~ ^[[:blank:]]*([^[:blank:]$set]+|[$set]+) && $rest ]]; do
            COMP_WORDS+=("${BASH_REMATCH[1]}")
            rest=${rest:${#BASH_REMATCH[0]}}
        done
        [[ $COMP_LINE == *[[:blank:]] ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _rattn_sim
        [ ${#COMPREPLY[@]} -eq 0 ] || printf "%s\n" "${COMPREPLY[@]}"'
}

is_offered() { # LINE WORDS: exactly these
    diff <(offers "$1" | sort) <(tr ' ' '\n' <<<"$2" | sort)
}

policies() { # as they are offered: with a colon where parameters follow
    "$rattn" list policies --format json |
        json '" ".join(p["name"] + (":" if p["parameters"] else "") for p in d if p["name"][0] != "+")'
}

@test "commands, and nothing but what goes on from what was typed" {
    # shellcheck disable=SC2046
    is_offered "rattn-sim " "help $(echo $(commands))"
    is_offered "rattn-sim re" "record replay report"
    is_offered "rattn-sim -" "-h --help --version"
    [ -z "$(offers "rattn-sim zz")" ]
    # shellcheck disable=SC2046
    is_offered "rattn-sim help " "$(echo $(commands))"
    is_offered "rattn-sim help --" "--man --completion"
}

@test "every option that -h has is offered, and no other" {
    for command in $(commands); do
        "$rattn" "$command" -h | sed -n '/^  \( \|-\)/p' |
            grep -oE '^ {1,6}(-[a-z], )?--[a-z-]+' | tr -d ', ' | sed 's/^\(-[a-z]\)--/\1\n--/' | sort >wanted
        [ -s wanted ]
        offers "rattn-sim $command -" | sort >got
        diff wanted got
    done
}

@test "every choice that -h has is offered for its option" {
    found=0
    for command in $(commands); do
        "$rattn" "$command" -h | sed -zE 's/\n {9,}/ /g' | grep -E '\([a-z, ]+ or [a-z]+; default: ' |
            sed -E 's/^ +(-[a-z], )?(--[a-z-]+) .*\(([^;]*);.*/\2 \3/; s/, | or / /g' >choices || true
        while read -r option words; do
            is_offered "rattn-sim $command $option " "$words"
            is_offered "rattn-sim $command $option=" "$words"
            found=$((found + 1))
        done <choices
    done
    [ "$found" -ge 8 ]
}

@test "backends, figures and listings are those that there are" {
    is_offered "rattn-sim replay t --backend " "$("$rattn" list backends --format json | json '" ".join(b["name"] for b in d if b["available"])')"
    is_offered "rattn-sim plot s.db --figure " "$("$rattn" list figures --format json | json '" ".join(f["name"] for f in d)')"
    for what in $(offers "rattn-sim list "); do
        run "$rattn" list "$what"
        [ "$status" -eq 0 ] || [[ $output == *"expected DB"* ]]
    done
}

@test "policies, their keys, and the choices of a key, with ':' and '=' breaking words" {
    is_offered "rattn-sim replay t -p " "+nospace $(policies)"
    [[ $(policies) == "full recycled: streaming: oracle: "*"sparse-transformer: "* ]]
    is_offered "rattn-sim replay t -p rec" "+nospace recycled:"
    is_offered "rattn-sim replay t -prec" "+nospace -precycled:"
    is_offered "rattn-sim replay t --policy=rec" "+nospace recycled:"
    is_offered "rattn-sim explain -p streaming:" "+nospace k= sinks= stride="
    is_offered "rattn-sim explain -p streaming:s" "+nospace sinks= stride="
    # readline replaces what follows the last '=': "8,s"
    is_offered "rattn-sim explain -p streaming:k=8,s" "+nospace 8,sinks= 8,stride="
    is_offered "rattn-sim explain --policy=streaming:k=8,sinks=2,s" "+nospace 2,stride="
    is_offered "rattn-sim replay t -p recycled:k=8,agg=m" "max mean"
    is_offered "rattn-sim replay t -p recycled:k=8,agg@0-3=" "max mean first sum"
    [ -z "$(offers "rattn-sim replay t -p recycled:k=")" ]
    [ -z "$(offers "rattn-sim replay t -p full:")" ]
    "$rattn" list policies --format json | json '"\n".join(p["name"] + " " + " ".join(q["name"] + "=" for q in p["parameters"]) for p in d if p["parameters"])' >all
    while read -r name keys; do
        is_offered "rattn-sim replay t -p $name:" "+nospace $keys"
    done <all
    is_offered "rattn-sim replay t -p full+" "+nospace full+kvquant: full+int8 full+int4 full+fp8:"
    is_offered "rattn-sim replay t -p streaming:k=8+kv" "+nospace 8+kvquant:"
    is_offered "rattn-sim replay t -p full+int8+kvquant:bits=4,n" "+nospace 4,nuq="
    is_offered "rattn-sim replay t -p full+kvquant:keys=" "channel head token"
    # where neither breaks words, whole words are replaced
    BREAKS=" " is_offered "rattn-sim explain -p streaming:k=8,s" "+nospace streaming:k=8,sinks= streaming:k=8,stride="
    BREAKS=" " is_offered "rattn-sim replay t --backend=c" "--backend=cpu"
}

@test "file names where files are meant, folders for folders, nothing for numbers" {
    for line in "replay " "replay a b" "replay a -p full --db " "replay --db=x" "list runs " \
        "report s.db -o " "replay -p full -- -x" "replay --by-type "; do
        is_offered "rattn-sim $line" "+default"
    done
    is_offered "rattn-sim plot s.db -o " "+dirnames"
    for line in "replay --repeat " "replay -j " "explain --text " "compare s.db x"; do
        [ -z "$(offers "rattn-sim $line")" ]
    done
    # the argument of one option is not an operand, joined letters are not a word
    is_offered "rattn-sim list --format json " "policies backends devices figures metrics runs"
    is_offered "rattn-sim list -qv " "policies backends devices figures metrics runs"
    is_offered "rattn-sim replay -qp " "+nospace $(policies)"
}

@test "it is a clean script that says nothing and sets nothing but its own" {
    "$rattn" help --completion >completion.bash
    run -0 bash --norc -c 'before=$(compgen -v; compgen -A function); . ./completion.bash
        diff <(echo "$before") <(compgen -v; compgen -A function) | grep "^>" | grep -v _rattn_sim; complete -p rattn-sim'
    [ "${lines[-1]}" = "complete -F _rattn_sim rattn-sim" ]
    [[ $(printf '%s\n' "${lines[@]::${#lines[@]}-1}" | grep -vE '^> (before|_|BASH_[A-Z]+|PIPESTATUS|FUNCNAME)$') == "" ]]
    command -v shellcheck >/dev/null || skip "needs shellcheck"
    shellcheck -s bash completion.bash
}

@test "a bash on a terminal completes with it" {
    command -v script >/dev/null || skip "needs script"
    "$rattn" help --completion >completion.bash
    ln -s "$rattn" rattn-sim
    touch "my trace.safetensors"
    export HISTFILE=/dev/null PATH=$PWD:$PATH
    # typed: a command, a choice, a policy with a key, a file whose name has a blank
    printf '%s\n' 'PS1=' '. ./completion.bash' $'rattn-sim lis\tbacke\t--format=js\t>list.json' \
        $'rattn-sim expl\t-p str\tk=6,si\t2 >explain.txt' \
        $'rattn-sim info my\t2>info.txt' exit >typed
    run script -qec "bash --norc --noprofile -i" /dev/null <typed
    [ "$(json 'd[0]["name"]' <list.json)" = cpu ]
    grep -q "streaming:k=6,sinks=2" explain.txt
    grep -q "^rattn-sim: my trace.safetensors: " info.txt
}
