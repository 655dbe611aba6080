//! Arguments and environment of a container's process: image, node and request merged.
use super::facts::NodeFacts;
use berth_model::{ContainerConfig, Error, ImageConfig, NamespaceMode, PodConfig, Result};

/// Longest argument or environment entry in bytes without its terminating zero (`MAX_ARG_STRLEN`, `linux/binfmts.h`).
const MAX_STRING: usize = 128 * 1024 - 1;
/// All of them together: Linux takes a quarter of the stack limit, usually 2 MiB.
const MAX_TOTAL: usize = 2 * 1024 * 1024;

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
pub(crate) const DEFAULT_TERM: &[u8] = b"xterm";

/// Program and arguments: a command replaces the image's entrypoint and its Cmd, arguments alone replace Cmd.
/// Errors: `InvalidArgument` where that leaves nothing, or for strings that no program can be given.
pub(crate) fn arguments(container: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>> {
    let (first, rest) = if !container.command.is_empty() {
        (&container.command, &container.args)
    } else if !container.args.is_empty() {
        (&image.entrypoint, &container.args)
    } else {
        (&image.entrypoint, &image.cmd)
    };
    let args: Vec<String> = first.iter().chain(rest).cloned().collect();
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("command", "no command specified: neither the container nor its image names one"));
    }
    for (i, arg) in args.iter().enumerate() {
        check_string(&format!("args[{i}]"), arg.as_bytes())?;
    }
    check_total("args", args.iter().map(String::len))?;
    Ok(args)
}

/// The environment, without duplicates: defaults, then the image's, then the container's; a later value takes the place of an
/// earlier one. Errors: `InvalidArgument` for names that are empty or contain `=` or NUL, for NUL in values, for sizes.
pub(crate) fn environment(
    container: &ContainerConfig,
    pod: &PodConfig,
    image: &ImageConfig,
    node: &NodeFacts,
) -> Result<Vec<Vec<u8>>> {
    let mut env = Environment::default();
    env.set(b"PATH", DEFAULT_PATH);
    if container.tty {
        env.set(b"TERM", DEFAULT_TERM);
    }
    let own_name = pod.security.namespaces.network != NamespaceMode::Node && !pod.hostname.is_empty();
    env.set(b"HOSTNAME", if own_name { pod.hostname.as_bytes() } else { node.hostname.as_bytes() });
    // What an image has that is no assignment is left out, as its builder's mistake and not the user's.
    for (key, value) in image.env.iter().filter_map(|entry| entry.split_once('=')).filter(|(key, _)| !key.is_empty()) {
        if !key.contains('\0') && !value.contains('\0') {
            env.set(key.as_bytes(), value.as_bytes());
        }
    }
    for (i, (key, value)) in container.env.iter().enumerate() {
        if key.is_empty() || key.contains(['=', '\0']) {
            let problem =
                format!("{key:?} cannot be the name of a variable: it must have characters, and neither `=` nor NUL");
            return Err(Error::invalid(format!("envs[{i}].key"), problem));
        }
        check_string(&format!("envs[{i}] ({key})"), value)?;
        env.set(key.as_bytes(), value);
    }
    for entry in &env.0 {
        check_string("envs", entry)?;
    }
    check_total("envs", env.0.iter().map(Vec::len))?;
    Ok(env.0)
}

/// `KEY=value` entries in order of their first appearance.
#[derive(Default)]
struct Environment(Vec<Vec<u8>>);

impl Environment {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        let entry = [key, b"=", value].concat();
        match self.0.iter_mut().find(|old| names(old, key)) {
            Some(old) => *old = entry,
            None => self.0.push(entry),
        }
    }
}

/// The entry sets this variable.
pub(crate) fn names(entry: &[u8], key: &[u8]) -> bool {
    entry.strip_prefix(key).is_some_and(|rest| rest.first() == Some(&b'='))
}

fn check_string(field: &str, text: &[u8]) -> Result<()> {
    if text.len() > MAX_STRING {
        return Err(Error::invalid(
            field,
            format_args!("{} bytes are more than the kernel's limit of {MAX_STRING}", text.len()),
        ));
    }
    if text.contains(&0) {
        return Err(Error::invalid(field, "must not contain NUL"));
    }
    Ok(())
}

fn check_total(field: &str, lengths: impl Iterator<Item = usize>) -> Result<()> {
    let total = lengths.fold(0usize, |sum, length| sum.saturating_add(length).saturating_add(1));
    if total > MAX_TOTAL {
        return Err(Error::invalid(field, format_args!("{total} bytes in all are more than the limit of {MAX_TOTAL}")));
    }
    Ok(())
}
