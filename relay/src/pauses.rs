//! Pauses before something is tried again: each twice as long as the one before, and each by chance somewhat shorter or
//! longer, so that many who were cut off together do not come back together.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

/// The pauses of one who tries again.
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// The first pause, and the longest.
    pub(crate) fn new((first, longest): (Duration, Duration)) -> Self {
        Self { next: first, longest }
    }

    /// The next pause: between a half and three halves of its length.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(rand::rng().random_range(0.5..1.5))
    }

    /// Waits; false when it would take longer than `until`.
    pub(crate) async fn wait(&mut self, until: Instant) -> bool {
        let end = Instant::now() + self.next();
        if end >= until {
            return false;
        }
        tokio::time::sleep_until(end).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_are_never_all_alike() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(2));
        let all = || {
            let mut pauses = Pauses::new((first, longest));
            std::array::from_fn::<Duration, 12, _>(|_| pauses.next())
        };
        let (one, two) = (all(), all());
        assert_ne!(one, two);
        for pauses in [one, two] {
            let mut length = first;
            for pause in pauses {
                assert!((length / 2..length * 3 / 2).contains(&pause), "{pauses:?}");
                length = (length * 2).min(longest);
            }
        }
    }

    #[tokio::test]
    async fn a_pause_that_would_last_too_long_is_not_begun() {
        let mut pauses = Pauses::new((Duration::from_secs(3600), Duration::from_secs(3600)));
        assert!(!pauses.wait(Instant::now() + Duration::from_secs(60)).await);
    }
}
