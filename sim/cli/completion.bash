# shellcheck shell=bash
# What to offer at a place comes from _rattn_sim_table KEY, which sets `found` to words or to one of
# @files, @folders, @none, @flag, @policies, @transforms. Keys: "" commands, "COMMAND " its options,
# "COMMAND --option" and "COMMAND -o" the option's argument, "COMMAND 1" its first operand,
# "POLICY:" the policy's keys, "POLICY:key" choices of a key.

# One word of candidates per line of `offered`: those that go on from $1.
_rattn_sim_offer() { # TYPED PREFIX WORDS
    local word
    for word in $3; do
        [[ $2$word == "$1"* ]] && offered+=("$2$word")
    done
}

_rattn_sim_policy() { # TYPED PREFIX: NAME:key=value,key=value+NAME:key=value
    local text=${1#"$2"}
    if [[ $text == *+* ]]; then
        _rattn_sim_spell "$1" "$2${text%"${text##*+}"}" @transforms
        return
    fi
    _rattn_sim_spell "$1" "$2" @policies
}

_rattn_sim_spell() { # TYPED PREFIX NAMES: NAME:key=value,key=value
    local found text=${1#"$2"} name rest item key word
    if [[ $text != *:* ]]; then
        _rattn_sim_table "$3"
        compopt -o nospace
        _rattn_sim_offer "$1" "$2" "$found"
        return
    fi
    name=${text%%:*} rest=${text#*:}
    item=${rest##*,}
    rest=${rest%"$item"}
    if [[ $item == *=* ]]; then
        key=${item%%=*}
        _rattn_sim_table "$name:${key%%@*}"
        [[ $found == @* ]] || _rattn_sim_offer "$1" "$2$name:$rest$key=" "$found"
        return
    fi
    _rattn_sim_table "$name:"
    [[ $found == @* ]] && return
    compopt -o nospace
    for word in $found; do
        [[ ,$rest == *",$word"* ]] || _rattn_sim_offer "$1" "$2$name:$rest" "$word"
    done
}

_rattn_sim_argument() { # TYPED PREFIX KEY: the prefix is "--option=", or "-o", or nothing
    local found
    _rattn_sim_table "$3"
    case $found in
    @files) compopt -o default ;;
    @folders) compopt -o dirnames ;;
    @policies) _rattn_sim_policy "$1" "$2" ;;
    @*) ;;
    *) _rattn_sim_offer "$1" "$2" "$found" ;;
    esac
}

# The words before the cursor as the shell will see them: bash cut them at ':' and '=' as well.
_rattn_sim_words() {
    local line=${COMP_LINE:0:COMP_POINT} piece i
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        if ((i == 0)) || [[ $line == [[:blank:]]* ]]; then
            words+=("")
            line=${line#"${line%%[![:blank:]]*}"}
        fi
        ((i < COMP_CWORD)) || piece=$line
        words[-1]+=$piece
        line=${line#"$piece"}
    done
}

# Sets `expects`, the option in $1 whose argument is the next word, and nothing when there is none.
_rattn_sim_option() {
    local found rest=${1#-}
    expects=
    case $1 in
    --*=*) ;;
    --*)
        _rattn_sim_table "$command $1"
        [[ $found == @flag ]] || expects=$1
        ;;
    *)
        while [[ $rest ]]; do # letters of flags may be joined; the first with an argument ends them
            _rattn_sim_table "$command -${rest:0:1}"
            [[ $found == @flag ]] || { [[ ${rest:1} ]] || expects=-$rest; return; }
            rest=${rest:1}
        done
        ;;
    esac
}

_rattn_sim() {
    local words word typed command="" expects="" found operands=0 is_ended="" offered=() breaks head
    COMPREPLY=()
    _rattn_sim_words
    typed=${words[-1]}
    for word in "${words[@]:1:${#words[@]}-2}"; do
        if [[ $expects ]]; then
            expects=
        elif [[ $word == -- ]]; then
            is_ended=1
        elif [[ $word == -?* && ! $is_ended ]]; then
            _rattn_sim_option "$word"
        elif [[ $command ]]; then
            ((++operands))
        else
            command=$word
        fi
    done
    if [[ $expects ]]; then
        _rattn_sim_argument "$typed" "" "$command $expects"
    elif [[ $typed == --*=* && ! $is_ended ]]; then
        _rattn_sim_argument "$typed" "${typed%%=*}=" "$command ${typed%%=*}"
    elif [[ $typed == -[a-z]?* && ! $is_ended ]]; then
        _rattn_sim_argument "$typed" "${typed:0:2}" "$command ${typed:0:2}"
    elif [[ $typed == -* && ! $is_ended ]]; then
        _rattn_sim_table "$command "
        _rattn_sim_offer "$typed" "" "$found"
    elif [[ $command ]]; then
        _rattn_sim_argument "$typed" "" "$command $((operands + 1))"
    else
        _rattn_sim_table ""
        _rattn_sim_offer "$typed" "" "$found"
    fi
    # readline replaces what stands after the last ':' or '=', where those break words
    breaks=${COMP_WORDBREAKS//[!:=]/}
    head=
    [[ $breaks && $typed == *["$breaks"]* ]] && head=${typed%"${typed##*["$breaks"]}"}
    COMPREPLY=("${offered[@]#"$head"}")
}
complete -F _rattn_sim rattn-sim
