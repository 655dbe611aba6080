//! Changing the limits of a running container's group, and reading what the kernel has.
use crate::check::checked;
use crate::view::View;
use crate::writes::{Write, apply, restore};
use crate::{CgroupPath, Cgroups, Layout, v1, v2};
use berth_model::{Resources, Result, ResultExt};

impl Cgroups {
    /// Sets the limits that are given and keeps the others. On an error the former values are in force again.
    ///
    /// Errors: `InvalidArgument` naming the field; `FailedPrecondition` for a memory limit below what is in use (with the
    /// usage) and for missing controllers; `NotFound` for a group that is gone.
    pub async fn update(&self, path: &CgroupPath, resources: &Resources) -> Result<()> {
        let resources = checked(resources)?;
        let view = self.view(path).context(|| "update")?;
        if self.inner.layout == Layout::V2 {
            v2::make_room(&view, &resources)?;
        }
        let writes = self.plan(&view, &resources, false)?;
        let undo = apply(&view, &writes)?;
        // systemd is told afterwards: it would write the same values one by one and leave some behind on an error.
        if let Some(unit) = path.unit()
            && let Err(e) = self.inner.systemd.set_properties(&unit.scope, &resources).await
        {
            restore(&view, &undo);
            return Err(e.context(format!("update of {}", unit.scope)));
        }
        Ok(())
    }

    /// What the kernel has in force. Unlimited is -1, or `None` for pids; what has no controller is `None`. On v2 shares are
    /// computed from the weight, see [`crate::weight_to_shares`].
    pub fn read_back(&self, path: &CgroupPath) -> Result<Resources> {
        Ok(self.read(&self.view(path)?))
    }

    fn read(&self, view: &View) -> Resources {
        if self.inner.layout == Layout::V2 { v2::read_back(view) } else { v1::read_back(view) }
    }

    pub(crate) fn plan(&self, view: &View, resources: &Resources, fresh: bool) -> Result<Vec<Write>> {
        if self.inner.layout == Layout::V2 {
            v2::plan(view, resources, fresh)
        } else {
            v1::plan(view, resources, fresh)
        }
    }
}
