//! The steps of taking a node over, of giving it back, and of changing its kubelet's settings: their names and their order, which the
//! journal, failpoints and messages share.
//!
//! Owns: names and order. Must not: do anything.
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the old runtime to Berth.
    Adopt,
    /// Back.
    Return,
    /// Neither: the kubelet gets other settings, and stays on Berth.
    Configure,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A process of its own watches from here on, and walks back if this one cannot.
    Arm,
    /// Programs into their directory, `current` names it.
    Stage,
    /// Berth's daemon runs beside the old runtime.
    Daemon,
    /// Images that the node itself needs.
    Images,
    /// Berth says that it is ready, and runs a sandbox.
    Canary,
    /// The kubelet ends.
    StopKubelet,
    /// The pods that are left end, by the runtime that has them.
    ClearPods,
    /// The kubelet's configuration names the other runtime, or has the other settings.
    Switch,
    /// The kubelet starts.
    StartKubelet,
    /// It is well, it is connected to the runtime that was meant, and the node's own pods run there.
    Verify,
    /// From here on nothing walks back.
    Commit,
    /// Berth's daemon ends.
    StopDaemon,
    /// Programs go.
    Unstage,
}

use Step::{
    Arm, Canary, ClearPods, Commit, Daemon, Images, Stage, StartKubelet, StopDaemon, StopKubelet, Switch, Unstage,
    Verify,
};

const ADOPT: &[Step] =
    &[Arm, Stage, Daemon, Images, Canary, StopKubelet, ClearPods, Switch, StartKubelet, Verify, Commit];
const CONFIGURE: &[Step] = &[Arm, StopKubelet, Switch, StartKubelet, Verify, Commit];
const RETURN: &[Step] = &[Arm, StopKubelet, ClearPods, Switch, StartKubelet, Verify, Commit, StopDaemon, Unstage];

impl Direction {
    /// Its steps, in order.
    pub fn steps(self) -> &'static [Step] {
        match self {
            Self::Adopt => ADOPT,
            Self::Return => RETURN,
            Self::Configure => CONFIGURE,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adopt => "adopt",
            Self::Return => "return",
            Self::Configure => "configure",
        })
    }
}

impl Step {
    /// Its name, as in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Arm => "arm",
            Stage => "stage",
            Daemon => "daemon",
            Images => "images",
            Canary => "canary",
            StopKubelet => "stop-kubelet",
            ClearPods => "clear-pods",
            Switch => "switch",
            StartKubelet => "start-kubelet",
            Verify => "verify",
            Commit => "commit",
            StopDaemon => "stop-daemon",
            Unstage => "unstage",
        }
    }

    /// What undoes it, in words; `None` where nothing has to.
    pub fn undo(self, direction: Direction) -> Option<&'static str> {
        Some(match self {
            Arm | Images | ClearPods | Commit | StopDaemon | Unstage => return None,
            Stage => "put back what `current` named, and remove what was staged",
            Daemon => {
                "end the daemon, unless it ran before; what it was handed is taken back, and the CNI configuration that it wrote"
            }
            Canary | Verify => "remove the test sandbox",
            StopKubelet => "start the kubelet, and wait until it is well",
            Switch => {
                "put every file back as it was; the runtime that has the node sees no CNI configuration of Berth's"
            }
            StartKubelet => match direction {
                Direction::Adopt => "stop the kubelet, and remove the pods that it has made on Berth",
                Direction::Return => "stop the kubelet, and remove the pods that it has made on the old runtime",
                Direction::Configure => "stop the kubelet",
            },
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
