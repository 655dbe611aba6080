//! `berth completion`: small scripts that ask `berth __complete` at each tab, so that names on the node are offered too and a
//! script never gets out of date.
use crate::commands::output;
use anyhow::Result;

/// For which shell.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  source <(berth completion bash)
  berth completion zsh > \"${fpath[1]}/_berth\"
  berth completion fish > ~/.config/fish/completions/berth.fish

Names of pods, containers and images are those on the node at that moment.")]
pub struct Options {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// Friendly interactive shell
    Fish,
}

/// A colon splits words in bash; what was before it is taken off the candidates again.
const BASH: &str = r#"# bash completion for berth
_berth() {
    local IFS=$'\n' line word candidates=() cur="${COMP_LINE:0:COMP_POINT}" words=()
    read -ra words -d '' <<< "${cur// /$'\n'}"
    [[ "$cur" == *' ' ]] && words+=('')
    local typed="${words[-1]}"
    while read -r line; do
        if [[ "$line" == ':files' ]]; then
            while read -r word; do candidates+=("$word"); done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
            compopt -o filenames 2>/dev/null
            COMPREPLY=("${candidates[@]}")
            return
        fi
        candidates+=("${line%%$'\t'*}")
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
    local colon="${typed%"${typed##*:}"}"
    [[ -n "$colon" && "$COMP_WORDBREAKS" == *:* ]] && candidates=("${candidates[@]#"$colon"}")
    COMPREPLY=("${candidates[@]}")
}
complete -F _berth berth
"#;

const ZSH: &str = r#"#compdef berth
_berth() {
    local line
    local -a candidates
    for line in "${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ "$line" == ':files' ]]; then
            _files
            continue
        fi
        [[ -n "$line" ]] && candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    (( $#candidates )) && _describe 'berth' candidates
}
if [[ "$funcstack[1]" = _berth ]]; then
    _berth "$@"
else
    compdef _berth berth
fi
"#;

const FISH: &str = r"# fish completion for berth
function __berth_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete -- $words[2..-1] 2>/dev/null)
        if test $line = ':files'
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c berth -f -a '(__berth_complete)'
";

/// Writes the script.
pub fn run(options: &Options) -> Result<()> {
    let script = match options.shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    };
    output::bytes(script.as_bytes())
}
