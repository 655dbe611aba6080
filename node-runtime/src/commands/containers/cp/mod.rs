//! `berth cp`: files between a container and the node. The container's root is entered by a descriptor of its own mount
//! namespace, and every step inside is one that no symbolic link can lead out of; the image needs no tar.
mod archive;
mod ids;
mod place;
mod tree;
mod walk;

use crate::commands::connect::{self, Runtime};
use crate::commands::listing::{self, ContainerView};
use crate::commands::names;
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use ids::Ids;
use place::{Place, Root};
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// What to copy where.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth cp web:/etc/hosts .              a file out of the only container of pod web
  berth cp ./conf db/app:/etc            a directory into container app of pod db: /etc/conf
  berth cp ./conf/. db/app:/etc          what is in it: /etc/...
  berth cp web:/var/log - | tar t        as a tar stream
  berth cp - web:/srv < files.tar        out of one

The rules are docker's. A directory is copied into a destination that is a directory, or becomes a
destination that does not exist; a source that ends with /. stands for what is in it. Symbolic links are
copied as such; -L follows the source itself. Without -a, what comes into a container belongs to its root,
and what comes out belongs to you. The container must run; its volumes are seen as it sees them. A local
path with a colon in it is written as ./a:b.")]
pub struct Options {
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Follow a source that is a symbolic link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say what was copied
    #[arg(short, long)]
    quiet: bool,
    /// Container of the pod
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// [CONTAINER|POD:]PATH, or - for a tar stream
    #[arg(value_name = "SOURCE")]
    source: String,
    /// [CONTAINER|POD:]PATH, or - for a tar stream
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// An end of a copy, as written.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Stream,
    Local(PathBuf),
    Container(String, PathBuf),
}

impl End {
    /// As docker reads it: what begins with `.` or `/` is local whatever follows.
    fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            bail!("a path is empty");
        }
        if text == "-" {
            return Ok(Self::Stream);
        }
        Ok(match text.split_once(':') {
            Some((name, path)) if !text.starts_with(['.', '/']) => {
                if name.is_empty() || path.is_empty() {
                    bail!("{text:?}: must be CONTAINER:PATH");
                }
                Self::Container(name.to_owned(), PathBuf::from(path))
            }
            _ => Self::Local(PathBuf::from(text)),
        })
    }
}

/// What was copied.
#[derive(Debug, Default)]
pub struct Count {
    pub files: u64,
    pub bytes: u64,
}

/// Copies.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (source, destination) = (End::parse(&options.source)?, End::parse(&options.destination)?);
    let (name, path, out) = match (&source, &destination) {
        (End::Container(..), End::Container(..)) => {
            bail!("copying between containers is not supported; go by way of a pipe: berth cp A:x - | berth cp - B:y")
        }
        (End::Container(name, path), _) => (name, path, true),
        (_, End::Container(name, path)) => (name, path, false),
        _ => bail!("one of the two must be CONTAINER:PATH"),
    };
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list(&mut runtime).await?;
    let (_, container) = names::container(&pods, name, options.container.as_deref())?;
    let (root, ids) = enter(&mut runtime, container).await?;
    let inside = Place { root, path: path.clone(), what: format!("{name}:{}", path.display()) };
    let count =
        if out { copy_out(options, &inside, &ids, &destination)? } else { copy_in(options, inside, ids, &source)? };
    if !options.quiet && std::io::stderr().is_terminal() {
        let size = crate::commands::table::size(count.bytes);
        eprintln!("Copied {} files, {size}, to {}", count.files, options.destination);
    }
    Ok(())
}

/// The container's root as it sees it, and how its ids are the node's.
async fn enter(runtime: &mut Runtime, container: &ContainerView) -> Result<(Root, Ids)> {
    let mut known = container.clone();
    listing::fill_container(runtime, &mut known, true).await?;
    let Some(pid) = known.pid else {
        bail!(
            "container {} does not run ({}), so that its files are not mounted; start it",
            known.name,
            known.shown_state()
        );
    };
    let root =
        Root::open(Path::new(&format!("/proc/{pid}/root"))).with_context(|| format!("root of {}", known.name))?;
    let ids = Ids::of(pid)?;
    // It still runs: the number was its own all the time, and is nobody else's.
    let mut again = known.clone();
    listing::fill_container(runtime, &mut again, true).await?;
    if again.pid != Some(pid) {
        bail!("container {} has just ended", known.name);
    }
    Ok((root, ids))
}

fn copy_out(options: &Options, inside: &Place, ids: &Ids, destination: &End) -> Result<Count> {
    let source = inside.source(options.follow_link)?;
    match destination {
        End::Stream => {
            if std::io::stdout().is_terminal() {
                bail!("a tar stream is not written to a terminal; redirect it");
            }
            let mut sink = archive::Writer::new(std::io::stdout().lock(), ids.clone());
            // docker's stream of the contents has no name of their directory.
            walk::walk(&source, if source.contents { OsStr::new(".") } else { &source.name }, &mut sink)?;
            sink.finish()
        }
        End::Local(path) => {
            let place = Place::local(path)?;
            let (base, top) = place.target(&source)?;
            let owner = if options.archive { tree::Owner::Inside(ids.clone()) } else { tree::Owner::Caller };
            let mut sink = tree::Writer::new(base, owner, place.what);
            walk::walk(&source, &top, &mut sink)?;
            sink.finish()
        }
        End::Container(..) => bail!("one of the two must be local"),
    }
}

fn copy_in(options: &Options, inside: Place, ids: Ids, source: &End) -> Result<Count> {
    let owner = if options.archive { tree::Owner::Mapped(ids) } else { tree::Owner::Root(ids) };
    match source {
        End::Stream => {
            let base = inside.directory()?;
            let mut sink = tree::Writer::new(base, owner, inside.what);
            archive::read(std::io::stdin().lock(), &mut sink)?;
            sink.finish()
        }
        End::Local(path) => {
            let source = Place::local(path)?.source(options.follow_link)?;
            let (base, top) = inside.target(&source)?;
            let mut sink = tree::Writer::new(base, owner, inside.what);
            walk::walk(&source, &top, &mut sink)?;
            sink.finish()
        }
        End::Container(..) => bail!("one of the two must be local"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_as_docker_reads_them() {
        let container = |name: &str, path: &str| End::Container(name.into(), path.into());
        assert_eq!(End::parse("-").unwrap(), End::Stream);
        assert_eq!(End::parse("web:/etc/hosts").unwrap(), container("web", "/etc/hosts"));
        assert_eq!(End::parse("ns/web/app:etc").unwrap(), container("ns/web/app", "etc"));
        assert_eq!(End::parse("./a:b").unwrap(), End::Local("./a:b".into()));
        assert_eq!(End::parse("/a:b").unwrap(), End::Local("/a:b".into()));
        assert_eq!(End::parse("a").unwrap(), End::Local("a".into()));
        for bad in ["", ":x", "web:"] {
            assert!(End::parse(bad).is_err(), "{bad:?}");
        }
    }
}
