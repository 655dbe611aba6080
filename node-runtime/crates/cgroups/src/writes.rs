//! Writing limits all or none: a list of writes, and the former values back if one fails.
use crate::files::errno;
use crate::view::View;
use berth_model::{Error, ErrorKind, Result};
use rustix::io::Errno;
use std::io;

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) controller: String,
    pub(crate) file: String,
    pub(crate) value: String,
    /// A file that this kernel may lack without harm (swap accounting for no swap, rsvd).
    pub(crate) optional: bool,
    /// Refused by the kernel with EINVAL, this goes after the next one: the two are judged together.
    pub(crate) swappable: bool,
}

impl Write {
    pub(crate) fn new(controller: &str, file: impl Into<String>, value: impl ToString) -> Self {
        Self {
            controller: controller.to_owned(),
            file: file.into(),
            value: value.to_string(),
            optional: false,
            swappable: false,
        }
    }

    pub(crate) fn optional(self, optional: bool) -> Self {
        Self { optional, ..self }
    }

    pub(crate) fn swappable(self) -> Self {
        Self { swappable: true, ..self }
    }

    fn put(&self, view: &View, undo: &mut Vec<Write>) -> io::Result<()> {
        let group = view.group(&self.controller).ok_or(io::ErrorKind::NotFound)?;
        let former = group.read(&self.file);
        group.write(&self.file, &self.value)?;
        if let Ok(former) = former {
            undo.push(Write { value: former, ..self.clone() });
        }
        Ok(())
    }
}

/// Writes in order, and gives the former values for [`restore`]. On an error what was written gets its former value again
/// and nothing is changed.
///
/// Errors: `FailedPrecondition` for a missing controller, else after the kernel's errno.
pub(crate) fn apply(view: &View, writes: &[Write]) -> Result<Vec<Write>> {
    let mut undo = Vec::new();
    match put_all(view, writes, &mut undo) {
        Ok(()) => Ok(undo),
        Err(e) => {
            restore(view, &undo);
            Err(e)
        }
    }
}

fn put_all(view: &View, writes: &[Write], undo: &mut Vec<Write>) -> Result<()> {
    let mut at = 0;
    while at < writes.len() {
        let write = &writes[at];
        let result = match (write.put(view, undo), writes.get(at + 1)) {
            (Err(e), Some(next)) if write.swappable && errno(&e) == Some(Errno::INVAL) => {
                at += 1;
                next.put(view, undo).map_err(|e| explain(view, next, &e))?;
                write.put(view, undo)
            }
            (Err(e), _) if write.optional && e.kind() == io::ErrorKind::NotFound => Ok(()),
            (result, _) => result,
        };
        result.map_err(|e| explain(view, write, &e))?;
        at += 1;
    }
    Ok(())
}

/// Last written first; what the kernel refuses because of the order (period and quota) is tried once more.
pub(crate) fn restore(view: &View, undo: &[Write]) {
    let put = |write: &Write| {
        let Some(group) = view.group(&write.controller) else { return true };
        // Files with a line per device take one line at a time.
        let lines: Vec<&str> = write.value.lines().collect();
        match lines.as_slice() {
            [] | [_] => group.write(&write.file, if write.value.is_empty() { "\n" } else { &write.value }).is_ok(),
            lines => lines.iter().all(|line| group.write(&write.file, line).is_ok()),
        }
    };
    let refused: Vec<&Write> = undo.iter().rev().filter(|write| !put(write)).collect();
    for write in refused {
        put(write);
    }
}

fn explain(view: &View, write: &Write, e: &io::Error) -> Error {
    let Write { controller, file, value, .. } = write;
    let group = view.name(controller);
    let what = format!("cannot set {file} of {group} to {:?}", value.trim_end());
    let kind = match (errno(e), e.kind()) {
        (_, io::ErrorKind::NotFound) => {
            let message = if view.group(controller).is_none() {
                format!("{what}: the {controller} controller is not mounted")
            } else {
                format!("{what}: there is no such file; the {controller} controller is not enabled there or lacks it")
            };
            return Error::new(ErrorKind::FailedPrecondition, message);
        }
        (Some(Errno::INVAL | Errno::RANGE | Errno::NODEV), _) => ErrorKind::InvalidArgument,
        (Some(Errno::BUSY), _) if file.starts_with("memory.") => {
            let usage = view.number("memory", "memory.usage_in_bytes").unwrap_or_default();
            let peak = view.number("memory", "memory.max_usage_in_bytes").unwrap_or_default();
            return below_usage(&what, usage, Some(peak));
        }
        (Some(Errno::BUSY | Errno::ACCESS | Errno::PERM), _) => ErrorKind::FailedPrecondition,
        _ => ErrorKind::Internal,
    };
    let hint = match (controller.as_str(), kind) {
        ("cpuset", ErrorKind::InvalidArgument | ErrorKind::FailedPrecondition) => {
            let effective =
                file.replace("cpuset.cpus", "cpuset.cpus.effective").replace("cpuset.mems", "cpuset.mems.effective");
            let there = view
                .read("cpuset", &effective)
                .or_else(|| view.read("cpuset", &file.replace("cpuset.", "cpuset.effective_")));
            there.map(|list| format!(" (available: {list})")).unwrap_or_default()
        }
        ("cpu", ErrorKind::InvalidArgument) => " (a quota must be within the parent group's)".to_owned(),
        _ => String::new(),
    };
    Error::new(kind, format!("{what}: {e}{hint}"))
}

/// The refusal of a limit that the group is above already.
pub(crate) fn below_usage(what: &str, usage: u64, peak: Option<u64>) -> Error {
    let peak = peak.map(|peak| format!(", peak {peak}")).unwrap_or_default();
    Error::new(
        ErrorKind::FailedPrecondition,
        format!(
            "{what}: it is below what is in use and cannot be freed ({usage} bytes{peak}); choose a limit above it"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CgroupPath, Cgroups};

    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, View) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        std::fs::create_dir(dir.path().join("g")).unwrap();
        for (name, value) in files {
            std::fs::write(dir.path().join("g").join(name), value).unwrap();
        }
        let view = Cgroups::v2_at(dir.path()).view(&CgroupPath::plain("g").unwrap()).unwrap();
        (dir, view)
    }

    #[test]
    fn a_failing_write_takes_the_others_back() {
        let (_dir, view) = group(&[("cpu.max", "max 100000\n"), ("cpu.weight", "100\n")]);
        let writes = [
            Write::new("cpu", "cpu.max", "5000 10000"),
            Write::new("cpu", "cpu.weight", 7),
            Write::new("memory", "memory.max", 9),
        ];
        let e = apply(&view, &writes).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::FailedPrecondition);
        assert!(e.message().contains("memory controller"), "{e}");
        assert_eq!(view.read("cpu", "cpu.max").unwrap(), "max 100000");
        assert_eq!(view.read("cpu", "cpu.weight").unwrap(), "100");
        apply(&view, &writes[..2]).unwrap();
        assert_eq!(view.read("cpu", "cpu.max").unwrap(), "5000 10000");
        apply(&view, &[writes[2].clone().optional(true)]).unwrap();
    }
}
