//! The approximate rules. `h` is the size of the branches: `A` and `F` stand for `h A` and `h F`, primes for Jacobians.

use super::{Ranges, Variant, bytes, filtering, macaron, narrow};
use strang_ir::Module;

/// A law that holds up to an error.
pub struct ApproximateRule {
    /// What receipts call it.
    pub name: &'static str,
    /// The law, in one line.
    pub law: &'static str,
    /// The error, to the second order in the size of the branches.
    pub expansion: &'static str,
    /// The power of that size with which the error falls.
    pub order: u32,
    /// Where it comes from.
    pub source: &'static str,
    /// Where it can be applied, given what values are on samples.
    pub find: fn(&Module, &Ranges) -> Vec<Variant>,
    /// A circuit with branches of size `@h`, where it can be applied.
    pub example: &'static str,
}

impl std::fmt::Debug for ApproximateRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every approximate rule.
pub fn all() -> &'static [ApproximateRule] {
    RULES
}

const TWO_BRANCHES: &str = "axis b = 5   axis m = 6   axis f = 8
param @h: f64[]   param @a: f64[m, m] param @v: f64[m, f] param @w: f64[f, m]
fn @f(%x: f64[b, m]) -> f64[b, m] {
  %p = dot %x[b, {m'}], @a[{m'}, m] -> [b, m]
  %q = map tanh : %p[b, m] -> [b, m]
  %s = map $0 + $1 * $2 : %x[b, m], %q[b, m], @h[] -> [b, m]
  %r = dot %s[b, {m}], @v[{m}, f] -> [b, f]
  %t = map sigmoid : %r[b, f] -> [b, f]
  %u = dot %t[b, {f}], @w[{f}, m] -> [b, m]
  %y = map $0 + $1 * $2 : %s[b, m], %u[b, m], @h[] -> [b, m]
  return %y
}";

const PARALLEL_BRANCHES: &str = "axis b = 5   axis m = 6   axis f = 8
param @h: f64[]   param @a: f64[m, m] param @v: f64[m, f] param @w: f64[f, m]
fn @f(%x: f64[b, m]) -> f64[b, m] {
  %p = dot %x[b, {m'}], @a[{m'}, m] -> [b, m]
  %q = map tanh : %p[b, m] -> [b, m]
  %s = map $0 + $1 * $2 : %x[b, m], %q[b, m], @h[] -> [b, m]
  %r = dot %x[b, {m}], @v[{m}, f] -> [b, f]
  %t = map sigmoid : %r[b, f] -> [b, f]
  %u = dot %t[b, {f}], @w[{f}, m] -> [b, m]
  %y = map $0 + $1 * $2 : %s[b, m], %u[b, m], @h[] -> [b, m]
  return %y
}";

const MEETING_HALVES: &str = "axis b = 5   axis m = 6   axis f = 8
param @h: f64[]   param @v: f64[m, f] param @w: f64[f, m] param @c: f64[m, f] param @d: f64[f, m]
fn @f(%x: f64[b, m]) -> f64[b, m] {
  %p = dot %x[b, {m}], @v[{m}, f] -> [b, f]
  %q = map tanh : %p[b, f] -> [b, f]
  %r = dot %q[b, {f}], @w[{f}, m] -> [b, m]
  %s = map $0 + $1 * $2 : %x[b, m], %r[b, m], @h[] -> [b, m]
  %t = dot %s[b, {m}], @c[{m}, f] -> [b, f]
  %u = map tanh : %t[b, f] -> [b, f]
  %z = dot %u[b, {f}], @d[{f}, m] -> [b, m]
  %y = map $0 + $1 * $2 : %s[b, m], %z[b, m], @h[] -> [b, m]
  return %y
}";

const THREE_BRANCHES: &str = "axis b = 5   axis m = 6   axis f = 8
param @h: f64[]   param @a: f64[m, m] param @v: f64[m, f] param @w: f64[f, m]
fn @f(%x: f64[b, m]) -> f64[b, m] {
  %p = dot %x[b, {m}], @v[{m}, f] -> [b, f]
  %q = map sigmoid : %p[b, f] -> [b, f]
  %r = dot %q[b, {f}], @w[{f}, m] -> [b, m]
  %s = map $0 + $1 * $2 * 0.5 : %x[b, m], %r[b, m], @h[] -> [b, m]
  %t = dot %s[b, {m'}], @a[{m'}, m] -> [b, m]
  %u = map tanh : %t[b, m] -> [b, m]
  %z = map $0 + $1 * $2 : %s[b, m], %u[b, m], @h[] -> [b, m]
  %c = dot %z[b, {m}], @v[{m}, f] -> [b, f]
  %d = map sigmoid : %c[b, f] -> [b, f]
  %e = dot %d[b, {f}], @w[{f}, m] -> [b, m]
  %y = map $0 + $1 * $2 * 0.5 : %z[b, m], %e[b, m], @h[] -> [b, m]
  return %y
}";

const WIDE_BRANCH: &str = "axis b = 5   axis m = 6   axis f = 32
param @h: f64[]   param @v: f64[m, f] param @c: f64[f] param @w: f64[f, m]
fn @f(%x: f64[b, m]) -> f64[b, m] {
  %r = dot %x[b, {m}], @v[{m}, f] -> [b, f]
  %s = map sigmoid($0 + $1) : %r[b, f], @c[f] -> [b, f]
  %u = dot %s[b, {f}], @w[{f}, m] -> [b, m]
  %y = map $0 + $1 * $2 : %x[b, m], %u[b, m], @h[] -> [b, m]
  return %y
}";

const LONG_BRANCH: &str = "axis b = 5   axis m = 6   axis k = 32   axis f = 16
param @h: f32[]   param @v: f32[m, k] param @w: f32[k, f] param @u: f32[f, m]
fn @f(%x: f32[b, m]) -> f32[b, m] {
  %p = dot %x[b, {m}], @v[{m}, k] -> [b, k]
  %r = dot %p[b, {k}], @w[{k}, f] -> [b, f]
  %s = map sigmoid : %r[b, f] -> [b, f]
  %t = dot %s[b, {f}], @u[{f}, m] -> [b, m]
  %y = map $0 + $1 * $2 : %x[b, m], %t[b, m], @h[] -> [b, m]
  return %y
}";

const FILTER: &str = "axis b = 5   axis m = 6   axis c = 16   axis e = 3
param @h: f64[]   param @a: f64[m, c] param @k: f64[c, m, e]
fn @f(%x: f64[b, m]) -> f64[b, m] {
  %p = dot %x[b, {m}], @a[{m}, c] -> [b, c]
  %r = dot order=(e, c) : %p[b + {e} - 1, {c}] else 0.0, @k[{c}, m, {e}] -> [b, m]
  %y = map mul : %r[b, m], @h[] -> [b, m]
  return %y
}";

const SPLITTING: &str = "operator splitting (Strang 1968); Macaron layers (Lu et al. 2019)";

const RULES: &[ApproximateRule] = &[
    ApproximateRule {
        name: "erase-branch",
        law: "x + F(x) ~ x",
        expansion: "F(x)",
        order: 1,
        source: "stochastic depth; layer dropping",
        find: |module, _| macaron::erasures(module, named("erase-branch")),
        example: TWO_BRANCHES,
    },
    ApproximateRule {
        name: "sequential-to-parallel",
        law: "s = x + A(x), s + F(s) ~ s + F(x)",
        expansion: "F(x + A(x)) - F(x) = F'A + O(h^3)",
        order: 2,
        source: "parallel transformer layers (GPT-J)",
        find: |module, _| macaron::parallels(module, named("sequential-to-parallel"), false),
        example: TWO_BRANCHES,
    },
    ApproximateRule {
        name: "parallel-to-sequential",
        law: "s = x + A(x), s + F(x) ~ s + F(s)",
        expansion: "F(x) - F(x + A(x)) = -F'A + O(h^3)",
        order: 2,
        source: "parallel transformer layers (GPT-J)",
        find: |module, _| macaron::sequentials(module, named("parallel-to-sequential")),
        example: PARALLEL_BRANCHES,
    },
    ApproximateRule {
        name: "merge-meeting-halves",
        law: "s = x + F(x)/2, s + G(s)/2 ~ x + (F(x) + G(x))/2, one feed-forward layer",
        expansion: "(G(x + F/2) - G(x))/2 = G'F/4 + O(h^3)",
        order: 2,
        source: SPLITTING,
        find: |module, _| macaron::parallels(module, named("merge-meeting-halves"), true),
        example: MEETING_HALVES,
    },
    ApproximateRule {
        name: "lie-trotter-to-strang",
        law: "+ A, + F ~ + F/2, + A, + F/2",
        expansion: "(A'F - F'A)/2 + F'F/4 + O(h^3)",
        order: 2,
        source: SPLITTING,
        find: |module, _| macaron::halvings(module, named("lie-trotter-to-strang")),
        example: TWO_BRANCHES,
    },
    ApproximateRule {
        name: "strang-to-lie-trotter",
        law: "+ F/2, + A, + F/2 ~ + A, + F",
        expansion: "(F'A - A'F)/2 - F'F/4 + O(h^3)",
        order: 2,
        source: SPLITTING,
        find: |module, _| macaron::joins(module, named("strang-to-lie-trotter")),
        example: THREE_BRANCHES,
    },
    ApproximateRule {
        name: "erase-hidden-units",
        law: "sum_i w_i s(v_i x) ~ the sum over the units with the largest weights",
        expansion: "the sum over the units that go",
        order: 1,
        source: "a feed-forward layer cut along its hidden axis, and the lesser part erased; structured pruning",
        find: |module, _| narrow::narrowings(module, named("erase-hidden-units")),
        example: WIDE_BRANCH,
    },
    ApproximateRule {
        name: "product-of-bytes",
        law: "x W ~ s (X - z) (Y c) for unsigned bytes X = round(x/s) + z and signed bytes Y = round(W/c), c one a channel",
        expansion: "d W + x D, the errors d and D of rounding being at most s/2 and c/2 on the range of the samples",
        order: 1,
        source: "Jacob et al., Quantization and Training of Neural Networks, 2018, section 2.1",
        find: |module, ranges| bytes::roundings(module, named("product-of-bytes"), ranges),
        example: LONG_BRANCH,
    },
    ApproximateRule {
        name: "winograd-four-results",
        law: "x * k = A ((G k) . (B x)) along an axis: four results of three taps with six products",
        expansion: "none over the reals; in floats the rounding of B x, G k and A, whose numbers go from 1/24 to 8",
        order: 1,
        source: "F(4, 3) of Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016",
        find: |module, _| filtering::filterings(module, named("winograd-four-results")),
        example: FILTER,
    },
];

fn named(name: &str) -> &'static ApproximateRule {
    RULES.iter().find(|rule| rule.name == name).unwrap_or(&RULES[0])
}
