//! Commands that take several names: all are looked up first, then each is done and told.
use crate::commands::connect::Runtime;
use crate::commands::listing::{self, ContainerView, PodView};
use crate::commands::names::{self, Target};
use anyhow::{Result, bail};

/// The containers that names mean: a container itself, or all of a pod that fit. Nothing is done if one of the names is wrong.
pub async fn containers(
    runtime: &mut Runtime,
    wanted: &[String],
    fits: impl Fn(&ContainerView) -> bool,
    else_say: &str,
) -> Result<Vec<(String, PodView, ContainerView)>> {
    let pods = listing::list(runtime).await?;
    let mut found = Vec::new();
    for name in wanted {
        match names::find(&pods, name)? {
            Target::Container(pod, container) if fits(container) => {
                found.push((name.clone(), pod.clone(), container.clone()));
            }
            Target::Container(_, container) => {
                bail!("container {} {else_say}: {}", container.name, container.shown_state());
            }
            Target::Pod(pod) => {
                let before = found.len();
                let inside = names::current_containers(pod).into_iter().filter(|c| fits(c));
                found.extend(inside.map(|c| (format!("{}/{}", pod.name, c.name), pod.clone(), c.clone())));
                if found.len() == before {
                    bail!("pod {} has no container that could be meant: each {else_say}", pod.full_name());
                }
            }
        }
    }
    Ok(found)
}

/// Goes on after one that fails; says each failure, and fails in the end.
#[derive(Default)]
pub struct Failures(usize);

impl Failures {
    /// Takes note of one.
    pub fn note(&mut self, name: &str, done: Result<()>) -> Result<()> {
        if let Err(error) = done {
            if error.downcast_ref::<crate::commands::output::ReaderGone>().is_some() {
                return Err(error);
            }
            self.0 += 1;
            eprintln!("berth: {name}: {error:#}");
        }
        Ok(())
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        u8::from(self.0 > 0)
    }
}
