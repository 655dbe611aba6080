//! Credentials by which images were pulled, for as long as this process lives: a layer whose compressed form the node gave up may lie where
//! only a pod's pull secret leads.
//!
//! Owns: how many are kept, and for which repositories. Must not: write one down, or give one out for another repository than its own.
use berth_registry::Auth;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Most repositories that credentials are kept for; the oldest give way.
const MAX_KEPT: usize = 256;

/// By repository, the latest last.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<VecDeque<(String, Auth)>>);

impl Remembered {
    /// Takes note of credentials that a registry has taken. Anonymous ones are none. `known` says of which repositories images are here
    /// still; of others nothing is kept.
    pub fn keep(&self, repository: String, auth: &Auth, known: impl Fn(&str) -> bool) {
        if *auth == Auth::Anonymous {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(other, _)| *other != repository && known(other));
        all.push_back((repository, auth.clone()));
        let surplus = all.len().saturating_sub(MAX_KEPT);
        all.drain(..surplus);
    }

    /// Those for a repository.
    pub fn of(&self, repository: &str) -> Option<Auth> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|(known, _)| known == repository).map(|(_, auth)| auth.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(name: &str) -> Auth {
        Auth::Basic { username: name.into(), password: name.into() }
    }

    #[test]
    fn the_latest_of_each_repository_is_kept_and_no_more_than_the_limit() {
        let kept = Remembered::default();
        kept.keep("r/a".into(), &auth("old"), |_| true);
        kept.keep("r/a".into(), &auth("new"), |_| true);
        kept.keep("r/b".into(), &Auth::Anonymous, |_| true);
        assert!(kept.of("r/a") == Some(auth("new")) && kept.of("r/b").is_none());
        kept.keep("r/c".into(), &auth("c"), |other| other != "r/a");
        assert!(kept.of("r/a").is_none(), "no image of it is here any more");
        for n in 0..MAX_KEPT {
            kept.keep(format!("r/{n}"), &auth("x"), |_| true);
        }
        assert!(kept.of("r/c").is_none() && kept.of("r/0").is_some());
    }
}
