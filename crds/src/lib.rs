//! RuntimeConfig and ImagePolicy: types, defaults, rules, merge.
