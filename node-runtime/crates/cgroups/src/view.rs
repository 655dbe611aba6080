//! One group in all hierarchies, and which of them a controller's files are in.
use crate::files::{Group, failed, is_gone};
use crate::{CgroupPath, Cgroups, Layout};
use berth_model::{Error, ErrorKind, Result};

/// The directories of one group that exist.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) layout: Layout,
    pub(crate) v1: Vec<(Vec<String>, Group)>,
    pub(crate) v2: Option<Group>,
}

impl View {
    /// Where the files of a controller are.
    pub(crate) fn group(&self, controller: &str) -> Option<&Group> {
        match self.layout {
            Layout::V2 => self.v2.as_ref(),
            _ => self.v1.iter().find(|(controllers, _)| controllers.iter().any(|c| c == controller)).map(|(_, g)| g),
        }
    }

    /// A file's content, trimmed; `None` where the controller or the file is missing.
    pub(crate) fn read(&self, controller: &str, file: &str) -> Option<String> {
        let text = self.group(controller)?.read(file).ok()?;
        Some(text.trim_end().to_owned())
    }

    /// A file with one number; v2's `max` is `None`.
    pub(crate) fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.read(controller, file)?.trim().parse().ok()
    }

    /// The directory that lists the processes: v2's where there is one.
    pub(crate) fn any(&self) -> Option<&Group> {
        self.v2.as_ref().or_else(|| self.v1.first().map(|(_, group)| group))
    }

    /// A group's own name, for messages.
    pub(crate) fn name(&self, controller: &str) -> String {
        self.group(controller).or(self.any()).map(|group| group.path().display().to_string()).unwrap_or_default()
    }
}

impl Cgroups {
    /// Opens a group in all hierarchies where it exists. Errors: `NotFound` if it exists in none.
    pub(crate) fn view(&self, path: &CgroupPath) -> Result<View> {
        let mut v1 = Vec::new();
        for hierarchy in &self.inner.v1 {
            match hierarchy.tree.group(path.dir()) {
                Ok(group) => v1.push((hierarchy.controllers.clone(), group)),
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(failed(format!("cgroup {path}"), e)),
            }
        }
        let v2 = match self.inner.v2.as_ref().map(|tree| tree.group(path.dir())) {
            Some(Ok(group)) => Some(group),
            Some(Err(e)) if !is_gone(&e) => return Err(failed(format!("cgroup {path}"), e)),
            _ => None,
        };
        if v1.is_empty() && v2.is_none() {
            return Err(Error::new(ErrorKind::NotFound, format!("cgroup {path} does not exist")));
        }
        Ok(View { layout: self.inner.layout, v1, v2 })
    }
}
