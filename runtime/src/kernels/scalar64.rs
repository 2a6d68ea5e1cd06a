//! Functions of one or two f64, and integer powers: what generated code calls where neither an instruction nor an f32
//! strip computes a function.
//!
//! The values are those of `libm` (a port of musl's), the same on every machine; f32 results that go through them are
//! correctly rounded in all but a few cases in a hundred million.

macro_rules! scalar_functions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal => |$x:ident| $value:expr;)*) => {
        /// A function of [`unary64`], by its number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u64)]
        pub enum Scalar64 { $($(#[$doc])* $variant),* }

        impl Scalar64 {
            /// Every function, by number.
            pub const ALL: &'static [Scalar64] = &[$(Scalar64::$variant),*];

            /// The function of a name, the names being those of `strang_ir::scalar::Unary`.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Scalar64::$variant),)*
                    _ => None,
                }
            }

            /// The value of the function at `x`.
            pub fn eval(self, x: f64) -> f64 {
                match self {
                    $(Scalar64::$variant => { let $x = x; $value })*
                }
            }
        }
    };
}

scalar_functions! {
    /// e^x.
    Exp = "exp" => |x| libm::exp(x);
    /// `e^x - 1`.
    ExpMinusOne = "expm1" => |x| libm::expm1(x);
    /// Natural logarithm.
    Log = "log" => |x| libm::log(x);
    /// `log(1 + x)`.
    LogOnePlus = "log1p" => |x| libm::log1p(x);
    /// Sine.
    Sin = "sin" => |x| libm::sin(x);
    /// Cosine.
    Cos = "cos" => |x| libm::cos(x);
    /// Tangent.
    Tan = "tan" => |x| libm::tan(x);
    /// Inverse sine.
    Asin = "asin" => |x| libm::asin(x);
    /// Inverse cosine.
    Acos = "acos" => |x| libm::acos(x);
    /// Inverse tangent.
    Atan = "atan" => |x| libm::atan(x);
    /// Hyperbolic sine.
    Sinh = "sinh" => |x| libm::sinh(x);
    /// Hyperbolic cosine.
    Cosh = "cosh" => |x| libm::cosh(x);
    /// Hyperbolic tangent.
    Tanh = "tanh" => |x| libm::tanh(x);
    /// Inverse hyperbolic sine.
    Asinh = "asinh" => |x| libm::asinh(x);
    /// Inverse hyperbolic cosine.
    Acosh = "acosh" => |x| libm::acosh(x);
    /// Inverse hyperbolic tangent.
    Atanh = "atanh" => |x| libm::atanh(x);
    /// The error function.
    Erf = "erf" => |x| libm::erf(x);
    /// `1 / (1 + e^-x)`.
    Sigmoid = "sigmoid" => |x| sigmoid(x);
    /// `x/2 * (1 + erf(x / sqrt 2))`.
    Gelu = "gelu" => |x| gate(x, 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2));
    /// `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`.
    GeluTanh = "gelu_tanh" => |x| gate(x, sigmoid(2. * std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x)));
    /// `x * sigmoid(x)`.
    Silu = "silu" => |x| gate(x, sigmoid(x));
    /// `log(1 + e^x)`.
    Softplus = "softplus" => |x| softplus(x);
    /// `x * tanh(softplus(x))`.
    Mish = "mish" => |x| gate(x, libm::tanh(softplus(x)));
}

fn sigmoid(x: f64) -> f64 {
    // The exponential of a negative number cannot overflow.
    let small = libm::exp(-x.abs());
    if x < 0. { small / (1. + small) } else { 1. / (1. + small) }
}

/// `x` times a factor that vanishes faster than `x` grows, with the limit -0 at -inf.
fn gate(x: f64, factor: f64) -> f64 {
    if x == f64::NEG_INFINITY { -0. } else { x * factor }
}

fn softplus(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.) + libm::log1p(libm::exp(-x.abs())) }
}

/// The function with this number ([`Scalar64`]) at `x`; `x` itself when there is no such function.
pub extern "C" fn unary64(function: u64, x: f64) -> f64 {
    Scalar64::ALL.get(function as usize).map_or(x, |function| function.eval(x))
}

/// `x` to the power `y`.
pub extern "C" fn power64(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

/// What truncating division of `x` by `y` leaves: C's `fmod`, which is exact.
pub extern "C" fn remainder64(x: f64, y: f64) -> f64 {
    libm::fmod(x, y)
}

/// `base` to the power `exponent`, wrapping in 64 bits, of which narrower integers take the low ones. With `signed` a
/// negative exponent gives the truncated quotient `1 / base^-exponent`, and 0 for a base of 0.
pub extern "C" fn power_integer(base: i64, exponent: i64, signed: u64) -> i64 {
    if signed != 0 && exponent < 0 {
        return match base {
            1 => 1,
            -1 if exponent & 1 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut result, mut square, mut left) = (1i64, base, exponent as u64);
    while left > 0 {
        if left & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        left >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions() {
        for (position, function) in Scalar64::ALL.iter().enumerate() {
            assert_eq!(*function as usize, position);
        }
        assert_eq!(unary64(Scalar64::Exp as u64, 0.), 1.);
        assert_eq!(unary64(u64::MAX, 3.), 3.);
    }

    #[test]
    fn limits() {
        for function in [Scalar64::Gelu, Scalar64::GeluTanh, Scalar64::Silu, Scalar64::Mish] {
            assert_eq!(function.eval(f64::INFINITY), f64::INFINITY, "{function:?}");
            assert!(function.eval(f64::NAN).is_nan(), "{function:?}");
            assert_eq!(function.eval(-1e300), 0., "{function:?}");
        }
        assert_eq!(Scalar64::Sigmoid.eval(-1e4), 0.);
        assert_eq!(Scalar64::Softplus.eval(1e4), 1e4);
        assert!((Scalar64::Gelu.eval(1.) - 0.841_344_746_068_543).abs() < 1e-15);
    }

    #[test]
    fn integer_powers() {
        assert_eq!(power_integer(3, 4, 1), 81);
        assert_eq!(power_integer(2, 64, 1), 0);
        assert_eq!(power_integer(-1, -3, 1), -1);
        assert_eq!(power_integer(0, -1, 1), 0);
        assert_eq!(power_integer(5, 0, 0), 1);
    }
}
