//! The command line.
use crate::Result;
use std::path::PathBuf;

/// Help text, also that of `cargo xtask quickstart --help`.
pub const HELP: &str = "\
cargo xtask quickstart [--keep] [--image REF] [--bin DIR] [--shared]

Runs one pod on this machine from an image in a registry, shows it, checks it, removes it, and counts what is left over.

  --keep        leave everything running, and print the crictl and kubelet lines that use it
  --image REF   run this image in place of the sample: whole reference, such as docker.io/library/nginx:1.29
  --bin DIR     use the programs in DIR (berth, berth-monitor, berth-init, berth-web) and build none of them
  --shared      others start containers on this machine meanwhile: count only what bears this run's names
";

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Leave it running.
    pub keep: bool,
    /// The user's image.
    pub image: Option<String>,
    /// Where the programs are.
    pub bin: PathBuf,
    /// Count only what bears this run's names.
    pub shared: bool,
}

/// Reads the arguments; `None` asks for help. Without `--bin`, the programs lie beside this one.
pub fn parse(args: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let mut options = Options { keep: false, image: None, bin: PathBuf::new(), shared: false };
    let mut args = args;
    while let Some(arg) = args.next() {
        let (name, attached) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let mut value = || attached.clone().or_else(|| args.next()).ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--keep" => options.keep = true,
            "--shared" => options.shared = true,
            "--image" => options.image = Some(reference(value()?)?),
            "--bin" => options.bin = value()?.into(),
            "-h" | "--help" => return Ok(None),
            _ => return Err(format!("there is no argument {name}")),
        }
    }
    if options.bin.as_os_str().is_empty() {
        let own = std::env::current_exe().map_err(|e| format!("own program: {e}"))?;
        options.bin = own.parent().map(PathBuf::from).unwrap_or_default();
    }
    Ok(Some(options))
}

/// It goes into a YAML document as it is. The daemon decides whether it is a reference.
fn reference(text: String) -> Result<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "./:@_-[]".contains(c);
    if text.is_empty() || text.len() > 512 || !text.chars().all(fits) || text.starts_with('-') {
        return Err(format!("--image {text:?} is not an image reference"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Option<Options>> {
        parse(words.iter().map(|w| (*w).to_owned()))
    }

    #[test]
    fn arguments_in_both_forms() {
        let options = of(&["--keep", "--image=a.b/c:1", "--bin", "/x"]).unwrap().unwrap();
        assert_eq!(options, Options { keep: true, image: Some("a.b/c:1".into()), bin: "/x".into(), shared: false });
        assert_eq!(of(&["--help"]).unwrap(), None);
        let own = std::env::current_exe().unwrap();
        assert_eq!(Some(of(&[]).unwrap().unwrap().bin.as_path()), own.parent());
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (words, expected) in [
            (&["--image"][..], "--image needs a value"),
            (&["--image", "a b"], "not an image reference"),
            (&["--image", "x\ny: z"], "not an image reference"),
            (&["--image", "-x"], "not an image reference"),
            (&["--kep"], "no argument --kep"),
        ] {
            let error = of(words).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
