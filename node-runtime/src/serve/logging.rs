//! The log: lines on stderr, plain or JSON; the level follows the settings.
use berth_settings::LogLevel;
use std::io::IsTerminal;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Changes the level of a running log.
pub struct Handle(reload::Handle<Targets, tracing_subscriber::Registry>);

/// Starts logging at level Info. `BERTH_LOG` (error, warn, info, debug, trace) beats the settings, for people who look closely.
pub fn start(json: bool) -> Handle {
    let first = forced().unwrap_or(LevelFilter::INFO);
    let (filter, handle) = reload::Layer::new(targets(first));
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).init();
    } else {
        let colours = std::io::stderr().is_terminal();
        registry.with(tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).init();
    }
    Handle(handle)
}

/// Our own crates at this level; libraries (one line per HTTP/2 frame) never below Info.
fn targets(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::INFO)).with_target("berth", level)
}

fn forced() -> Option<LevelFilter> {
    std::env::var("BERTH_LOG").ok()?.parse().ok()
}

impl Handle {
    /// Applies a level from the settings.
    pub fn set(&self, level: LogLevel) {
        let filter = match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        if forced().is_none()
            && let Err(e) = self.0.modify(|f| *f = targets(filter))
        {
            tracing::error!(error = %e, "log level stays");
        }
    }
}
