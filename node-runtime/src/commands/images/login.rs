//! `berth login` and `berth logout`: the node's own credentials for a registry, in Docker's format.
//!
//! Must not: need a daemon, or show a password. The daemon reads the file at each pull that needs it, so a login counts at once.
use crate::commands::{output, terminal};
use crate::layout::Layout;
use crate::registries;
use crate::serve::wire;
use anyhow::{Context, Result, anyhow, bail};
use berth_registry::credentials::{DockerConfig, Helper, config_key};
use berth_registry::{Auth, Client, Secret, registry_of};
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Longest line of credentials in bytes.
const MAX_CREDENTIALS: u64 = 64 * 1024;
/// How long a helper may take.
const HELPER_LIMIT: Duration = Duration::from_secs(30);
const HUB: &str = "docker.io";

/// Where to log in.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth login registry.example -u me --password-stdin < password
  berth login registry.example:5000

The credentials are shown to the registry first, with the node's settings for it, and kept only if it takes them: in config.json beside
the documents, readable by root alone, or with the helper that this file names (credsStore, credHelpers). Pulls whose request brings no
credentials use them from then on.")]
pub struct Options {
    /// Registry, with its port; without one Docker Hub
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Read documents from DIR, as `berth serve --config` does
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
}

/// Where to log out.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth logout registry.example")]
pub struct Logout {
    /// Registry, with its port; without one Docker Hub
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Logs in.
pub async fn login(layout: &Layout, options: &Options) -> Result<()> {
    let host = registry_of(options.server.as_deref().unwrap_or(HUB));
    let (username, password) = ask(options, &host)?;
    let auth = Auth::basic(&username, password.expose())?;
    let documents = options.config.clone().unwrap_or_else(|| layout.etc.clone());
    let accepted = wire::accepted(layout);
    let settings = tokio::task::spawn_blocking(move || berth_settings::load(&documents, &accepted)).await??;
    let (config, problems) = registries::client_config(&settings, layout, &Default::default());
    for problem in problems {
        eprintln!("WARNING! {problem}");
    }
    Client::new(config)?.check_login(&host, &auth).await.with_context(|| format!("login to {host}"))?;
    let path = registries::login_file(layout);
    let mut file = DockerConfig::load(&path)?.unwrap_or_default();
    match file.helper(&host).map(str::to_owned) {
        Some(helper) => {
            Helper::new(&helper, HELPER_LIMIT)?.store(&config_key(&host), &username, &password).await?;
            file.set_helped(&host);
        }
        None => {
            eprintln!(
                "WARNING! Your credentials are stored unencrypted in {}, readable by root alone.",
                path.display()
            );
            file.set(&host, &username, &password);
        }
    }
    file.save(&path)?;
    output::line("Login Succeeded")
}

/// Logs out.
pub async fn logout(layout: &Layout, options: &Logout) -> Result<()> {
    let host = registry_of(options.server.as_deref().unwrap_or(HUB));
    let path = registries::login_file(layout);
    let mut file = DockerConfig::load(&path)?.unwrap_or_default();
    let helper = file.helper(&host).map(str::to_owned);
    let held = file.remove(&host);
    if !held && helper.is_none() {
        return output::line(format_args!("Not logged in to {host}"));
    }
    output::line(format_args!("Removing login credentials for {host}"))?;
    if let Some(helper) = helper {
        Helper::new(&helper, HELPER_LIMIT)?.erase(&config_key(&host)).await?;
    }
    if held {
        file.save(&path)?;
    }
    Ok(())
}

/// User name and password, from the options, standard input or the terminal. A password is never taken from the command line, where
/// every process could read it.
fn ask(options: &Options, host: &str) -> Result<(String, Secret)> {
    if options.password_stdin {
        let username = options.username.clone().unwrap_or_default();
        let mut text = String::new();
        std::io::stdin().lock().take(MAX_CREDENTIALS).read_to_string(&mut text).context("standard input")?;
        let password = text.trim_end_matches(['\n', '\r']);
        return checked(username, password);
    }
    if !terminal::on_stdin() {
        bail!("standard input is no terminal; use -u USER --password-stdin");
    }
    let username = match &options.username {
        Some(username) => username.clone(),
        None => prompt(&format!("Username for {host}: "))?,
    };
    let password = {
        let _hidden = terminal::Hidden::enter()?;
        prompt("Password: ")?
    };
    eprintln!();
    checked(username, &password)
}

fn checked(username: String, password: &str) -> Result<(String, Secret)> {
    if username.is_empty() || password.is_empty() {
        return Err(anyhow!("user name and password must not be empty"));
    }
    Ok((username, password.into()))
}

fn prompt(words: &str) -> Result<String> {
    eprint!("{words}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_CREDENTIALS).read_line(&mut line).context("standard input")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
