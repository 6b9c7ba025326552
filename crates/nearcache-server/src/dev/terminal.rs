//! How `dev` speaks: colour and a moving line on a terminal, plain complete lines elsewhere.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often the moving line is drawn at most.
const FRAME: Duration = Duration::from_millis(80);
/// The pictures of the moving line.
const SPINNER: &[&str] = &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// Without a terminal, how often a long step says that it is still going on.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// Standard output, as it is.
#[derive(Debug)]
pub(super) struct Terminal {
    is_terminal: bool,
    colour: bool,
}

impl Terminal {
    /// Looks at standard output and the environment; `NO_COLOR` is respected (no-color.org).
    pub(super) fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal()
            && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self {
            is_terminal,
            colour: is_terminal && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// A line.
    pub(super) fn line(&self, text: &str) {
        write(&format!("{text}\n"));
    }

    /// A line that begins something.
    pub(super) fn heading(&self, text: &str) {
        self.line(&self.styled("1", text));
    }

    /// A command to copy.
    pub(super) fn command(&self, text: &str) {
        self.line(&format!("  {}", self.styled("36", text)));
    }

    /// A finished step of the tour: what was done, and the figures.
    pub(super) fn result(&self, what: &str, figures: &[String]) {
        self.line(&format!("{} {what}", self.styled("32", "✓")));
        for figure in figures {
            self.line(&format!("    {figure}"));
        }
    }

    /// A side remark, for example how something was measured.
    pub(super) fn remark(&self, text: &str) {
        self.line(&format!("    {}", self.styled("2", text)));
    }

    /// A step that may take more than a moment.
    pub(super) fn progress(&self, what: &str) -> Progress {
        let started = Instant::now();
        let progress = Progress {
            state: Rc::new(RefCell::new(State {
                what: what.to_owned(),
                started,
                drawn: started.checked_sub(FRAME).unwrap_or(started),
                frame: 0,
                said: started,
            })),
            is_terminal: self.is_terminal,
        };
        progress.at("");
        progress
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A step under way. Costs next to nothing when told more often than it draws.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    state: Rc<RefCell<State>>,
    is_terminal: bool,
}

#[derive(Debug)]
struct State {
    what: String,
    started: Instant,
    drawn: Instant,
    frame: usize,
    said: Instant,
}

impl Progress {
    /// How far the step is: `detail` follows its name.
    pub(super) fn at(&self, detail: &str) {
        let mut state = self.state.borrow_mut();
        let now = Instant::now();
        if self.is_terminal {
            if now.duration_since(state.drawn) >= FRAME {
                state.drawn = now;
                state.frame += 1;
                let picture = SPINNER.get(state.frame % SPINNER.len()).unwrap_or(&"");
                write(&format!("\r\x1b[2K{picture} {} {detail}", state.what));
            }
        } else if now.duration_since(state.said) >= PLAIN_INTERVAL {
            state.said = now;
            let seconds = now.duration_since(state.started).as_secs();
            write(&format!("... {} {detail} ({seconds} s)\n", state.what));
        }
    }

    /// How far the step is, as a share of `total`.
    pub(super) fn share(&self, done: usize, total: usize) {
        let percent = done.min(total) * 100 / total.max(1);
        self.at(&format!("{percent} %"));
    }

    /// Takes the moving line away.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            write("\r\x1b[2K");
        }
    }
}

/// A reader that went away, as `head` does, is no reason to stop a cluster.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
