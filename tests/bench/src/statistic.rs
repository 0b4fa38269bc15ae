//! What is said of many samples: their median and their 99th percentile.

/// The middle sample; of an even number the mean of the two in the middle. None of none.
#[must_use]
pub fn median(samples: &[f64]) -> Option<f64> {
    let sorted = sorted(samples);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = sorted.get(middle.checked_sub(1)?)?;
    Some(f64::midpoint(*lower, upper))
}

/// The smallest sample that at least 99 of 100 are not above (nearest rank). Of fewer than 100 it is the largest.
#[must_use]
pub fn p99(samples: &[f64]) -> Option<f64> {
    let sorted = sorted(samples);
    let rank = (sorted.len() * 99).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 100.0, 2.0]), Some(3.0));
    }

    #[test]
    fn the_99th_percentile_is_a_sample_that_was_taken() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(p99(&hundred), Some(99.0));
        let thousand: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(p99(&thousand), Some(990.0));
        let hundred_and_one: Vec<f64> = (1..=101).map(f64::from).collect();
        assert_eq!(p99(&hundred_and_one), Some(100.0));
        assert_eq!(p99(&[3.0, 8.0, 5.0]), Some(8.0));
        assert_eq!(p99(&[]), None);
    }
}
