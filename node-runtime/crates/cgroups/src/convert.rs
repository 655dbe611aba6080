//! Conversions between the CRI's (cgroup v1) units and cgroup v2's. Pure.

/// Smallest and largest CPU shares that the kernel takes (v1 `cpu.shares`).
pub(crate) const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// The largest `cpu.weight`.
const WEIGHT_MAX: u64 = 10_000;

/// `cpu.weight` (1 to 10000) for CPU shares, by the curve that runc (since 1.3) and crun use: it meets (2, 1), (1024, 100)
/// and (262144, 10000), so that the default of v1 becomes the default of v2. The kubelet's older linear one (KEP-2254)
/// gives 39 for 1024.
pub fn shares_to_weight(shares: u64) -> u64 {
    if shares <= *SHARES.start() {
        return 1;
    }
    if shares >= *SHARES.end() {
        return WEIGHT_MAX;
    }
    // Exact: shares are below 2^18.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let weight = {
        let l = (shares as f64).log2();
        10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64
    };
    weight.clamp(1, WEIGHT_MAX)
}

/// The largest shares whose weight is not above this one: the inverse of [`shares_to_weight`] as far as there is one
/// (1024 and the ends are met exactly; others come within the width of one weight).
pub fn weight_to_shares(weight: u64) -> u64 {
    let (mut low, mut high) = SHARES.into_inner();
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if shares_to_weight(middle) <= weight {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_become_the_fields_weights() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (500_000, 10_000)] {
            assert_eq!(shares_to_weight(shares), weight, "shares {shares}");
        }
        assert_eq!((weight_to_shares(1), weight_to_shares(100), weight_to_shares(10_000)), (2, 1024, 262_144));
    }

    proptest! {
        #[test]
        fn weights_rise_with_shares_and_come_back(shares in 2u64..=262_144) {
            let weight = shares_to_weight(shares);
            prop_assert!(weight <= shares_to_weight(shares + 1));
            prop_assert_eq!(shares_to_weight(weight_to_shares(weight)), weight);
            prop_assert!(weight_to_shares(weight) >= shares);
        }
    }
}
