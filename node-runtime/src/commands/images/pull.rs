//! `berth pull`, and pulling for `berth run`.
use crate::commands::connect::{self, Node, said};
use crate::commands::images::progress::Progress;
use crate::commands::output;
use crate::layout::Layout;
use anyhow::{Context, Result, anyhow, bail};
use berth_proto::node::pull_image_event::Event;
use berth_proto::node::{PullImageRequest, PullResult};
use std::io::Read;

/// Longest line of credentials in bytes.
const MAX_CREDENTIALS: u64 = 64 * 1024;

/// What to pull.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth pull registry.example/web:1
  berth pull --platform linux/amd64/v3 registry.example/web:1
  berth pull --creds me --password-stdin registry.example/web:1 < password
  printf 'me:secret' | berth pull --creds - registry.example/web:1

A password is never taken from the command line, where every process could read it.
Prints the reference by its digest.")]
pub struct Options {
    /// Image to pull
    #[arg(value_name = "REFERENCE")]
    reference: String,
    #[command(flatten)]
    login: Login,
    /// Of an image for several platforms, which variant: OS/ARCH/VARIANT of this node's architecture
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    platform: String,
    /// Namespace whose image policies apply; without one the strictest do
    #[arg(long, value_name = "NAMESPACE", default_value = "")]
    namespace: String,
    /// Show no progress, only the id
    #[arg(short, long)]
    quiet: bool,
}

/// Who asks the registry.
#[derive(clap::Args)]
pub struct Login {
    /// User of the registry; `-` reads USER:PASSWORD from standard input
    #[arg(long, value_name = "USER")]
    creds: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "creds")]
    password_stdin: bool,
}

impl Login {
    /// User and password; empty when none are given.
    pub fn read(&self) -> Result<(String, String)> {
        match &self.creds {
            None => Ok((String::new(), String::new())),
            Some(creds) => credentials(creds, self.password_stdin, &mut std::io::stdin().lock()),
        }
    }
}

/// Pulls it.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (username, password) = options.login.read()?;
    let mut node = connect::node(layout).await?;
    let request = PullImageRequest {
        reference: options.reference.clone(),
        username,
        password,
        namespace: options.namespace.clone(),
        platform: options.platform.clone(),
    };
    let result = pull(&mut node, request, options.quiet).await?;
    if options.quiet {
        return output::line(result.image_id);
    }
    output::line(format_args!("{} {} {}", options.reference, result.image_id, result.digest))
}

/// Pulls and shows how far it has come. Warnings of image policies go to standard error.
pub async fn pull(node: &mut Node, request: PullImageRequest, quiet: bool) -> Result<PullResult> {
    let reference = request.reference.clone();
    let mut progress = Progress::new(&reference, quiet);
    let pulled = follow(node, request, &mut progress).await;
    progress.finish();
    let result = pulled?;
    for warning in &result.warnings {
        eprintln!("berth: warning: {reference}: {warning}");
    }
    Ok(result)
}

async fn follow(node: &mut Node, request: PullImageRequest, progress: &mut Progress) -> Result<PullResult> {
    let mut events = node.pull_image(request).await.map_err(said)?.into_inner();
    while let Some(event) = events.message().await.map_err(said)? {
        match event.event {
            Some(Event::Progress(step)) => progress.step(&step),
            Some(Event::Result(result)) => return Ok(result),
            None => {}
        }
    }
    Err(anyhow!("the daemon ended before the pull did"))
}

/// User and password, as `--creds` and `--password-stdin` say.
fn credentials(creds: &str, password_stdin: bool, stdin: &mut impl Read) -> Result<(String, String)> {
    let mut line = || -> Result<String> {
        let mut text = String::new();
        stdin.take(MAX_CREDENTIALS).read_to_string(&mut text).context("credentials on standard input")?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    match (creds, password_stdin) {
        ("-", false) => match line()?.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok((user.to_owned(), password.to_owned())),
            _ => bail!("standard input must be USER:PASSWORD"),
        },
        ("-", true) => bail!("--creds - reads the password too; leave --password-stdin away"),
        (user, _) if user.contains(':') => bail!(
            "a password on the command line can be read by every process; give --creds USER --password-stdin, or --creds - and \
             USER:PASSWORD on standard input"
        ),
        (user, true) => Ok((user.to_owned(), line()?)),
        (_, false) => bail!("--creds USER needs --password-stdin"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_come_from_stdin_only() {
        let read = |creds: &str, flag, text: &str| credentials(creds, flag, &mut text.as_bytes());
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(read("me", true, "p:w\nrest").unwrap(), pair("me", "p:w"));
        assert_eq!(read("-", false, "me:p:w\n").unwrap(), pair("me", "p:w"));
        for (creds, flag, text) in
            [("me:pw", false, ""), ("me", false, "x"), ("-", true, "a:b"), ("-", false, "ab"), ("-", false, ":b")]
        {
            assert!(read(creds, flag, text).is_err(), "{creds} {flag} {text}");
        }
    }
}
