//! Our own terminal while a command in a container has it: raw, and put back however we end.
use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{IsTerminal, stdin, stdout};

/// Standard input in raw mode (termios(3), cfmakeraw) until this is dropped.
pub struct Raw(Termios);

impl Raw {
    /// Switches it.
    pub fn enter() -> Result<Self> {
        let before = tcgetattr(stdin()).context("terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw).context("terminal")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nobody is left to tell when the terminal has gone.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Whether somebody types on standard input.
pub fn on_stdin() -> bool {
    stdin().is_terminal()
}

/// Rows and columns of the terminal; 24 and 80 where there is none.
pub fn size() -> (u32, u32) {
    let asked = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin()));
    match asked {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (u32::from(size.ws_row), u32::from(size.ws_col)),
        _ => (24, 80),
    }
}

/// Standard input without echo until this is dropped: for a password.
pub struct Hidden(Termios);

impl Hidden {
    /// Switches it.
    pub fn enter() -> Result<Self> {
        let before = tcgetattr(stdin()).context("terminal")?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &hidden).context("terminal")?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nobody is left to tell when the terminal has gone.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}
