//! CPU levels: the instruction sets kernels are compiled for, how one is chosen, and the macro that instantiates a
//! generic kernel for each.
//!
//! Three levels are enough: AVX-512 and AVX2 with fma cover the x86-64 servers and desktops in use, and everything else
//! runs plain Rust. The choice changes speed only, never a bit of a result, but for products that were asked for in bf16
//! ([`super::bf16`]).

use std::fmt;
use std::str::FromStr;

/// The environment variable that forces a level: `portable`, `avx2` or `avx512`.
pub const LEVEL_VARIABLE: &str = "STRANG_CPU_LEVEL";

/// An instruction set kernels are compiled for, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust, for any CPU; fused multiply-adds are emulated where the target has none.
    Portable,
    /// x86-64 with AVX2, FMA and F16C: 256-bit vectors.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL besides all of [`Level::Avx2`]: 512-bit vectors and masks.
    Avx512,
}

/// Why no level could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// The name is not that of a level.
    #[error("unknown CPU level `{name}`: use portable, avx2 or avx512")]
    Unknown {
        /// The name as it was given.
        name: String,
    },
    /// The level exists, but this machine cannot run it.
    #[error("this machine cannot run CPU level {level}; the highest it can run is {highest}")]
    Missing {
        /// The level that was asked for.
        level: Level,
        /// The highest level this machine runs.
        highest: Level,
    },
}

impl Level {
    /// Every level, ascending, whether or not this machine runs it.
    pub const ALL: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    /// The highest level of this machine, or the lower one named by [`LEVEL_VARIABLE`].
    ///
    /// # Errors
    /// [`LevelError`] when the variable names an unknown level or one this machine lacks.
    pub fn detect() -> Result<Level, LevelError> {
        match std::env::var_os(LEVEL_VARIABLE) {
            None => Ok(Level::highest()),
            Some(name) => Level::choose(&name.to_string_lossy()),
        }
    }

    /// The level of that name, if this machine runs it.
    ///
    /// # Errors
    /// [`LevelError`] when the name is unknown or this machine lacks the level.
    pub fn choose(name: &str) -> Result<Level, LevelError> {
        let level: Level = name.parse()?;
        if level.is_available() { Ok(level) } else { Err(LevelError::Missing { level, highest: Level::highest() }) }
    }

    /// The levels this machine runs, ascending; [`Level::Portable`] is always among them.
    pub fn available() -> Vec<Level> {
        Level::ALL.into_iter().filter(|level| level.is_available()).collect()
    }

    /// Whether this machine runs the level.
    pub fn is_available(self) -> bool {
        match self {
            Level::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                Level::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 | Level::Avx512 => false,
        }
    }

    pub(crate) fn highest() -> Level {
        Level::ALL.into_iter().rev().find(|level| level.is_available()).unwrap_or(Level::Portable)
    }

    /// The name, as [`LEVEL_VARIABLE`] spells it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(name: &str) -> Result<Level, LevelError> {
        let found = Level::ALL.into_iter().find(|level| level.name() == name);
        found.ok_or_else(|| LevelError::Unknown { name: name.to_owned() })
    }
}

/// Instantiates a generic kernel for every level, as `unsafe extern "C"` functions `portable`, `avx2` and `avx512` in a
/// module of the kernel's name, which is the form `table.rs` takes.
///
/// `per_level! { /// Docs. pub mod name = body::<family>(argument: Type, ...); }` calls `body::<family::Avx512>` and so
/// on; `family` is a module in scope that has types `Portable`, `Avx2` and `Avx512`. `body` and all it calls must be
/// `#[inline(always)]`: the instruction set holds for what is inlined and for nothing else.
macro_rules! per_level {
    ($(
        $(#[$attribute:meta])*
        $vis:vis mod $name:ident = $body:ident::<$family:ident>($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?;
    )*) => {$(
        $(#[$attribute])*
        $vis mod $name {
            #[allow(unused_imports)]
            use super::*;

            /// For any CPU.
            ///
            /// # Safety
            /// As the module says.
            pub unsafe extern "C" fn portable($($argument: $type),*) $(-> $result)? {
                // SAFETY: the caller keeps the contract of the kernel.
                unsafe { super::$body::<super::$family::Portable>($($argument),*) }
            }

            /// For CPUs of [`Level::Avx2`](crate::kernels::Level::Avx2).
            ///
            /// # Safety
            /// As the module says, and the CPU is of that level.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            pub unsafe extern "C" fn avx2($($argument: $type),*) $(-> $result)? {
                // SAFETY: the caller keeps the contract of the kernel.
                unsafe { super::$body::<super::$family::Avx2>($($argument),*) }
            }

            /// For CPUs of [`Level::Avx512`](crate::kernels::Level::Avx512).
            ///
            /// # Safety
            /// As the module says, and the CPU is of that level.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            pub unsafe extern "C" fn avx512($($argument: $type),*) $(-> $result)? {
                // SAFETY: the caller keeps the contract of the kernel.
                unsafe { super::$body::<super::$family::Avx512>($($argument),*) }
            }
        }
    )*};
}
pub(crate) use per_level;

/// Calls a kernel of [`per_level`] for the highest level of this machine. Unsafe as the kernel is, but for the level.
macro_rules! at_highest_level {
    ($kernel:ident($($argument:expr),* $(,)?)) => {
        match $crate::kernels::Level::highest() {
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::Level::Avx512 => $kernel::avx512($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::Level::Avx2 => $kernel::avx2($($argument),*),
            _ => $kernel::portable($($argument),*),
        }
    };
}
pub(crate) use at_highest_level;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!(Level::choose("sse9"), Err(LevelError::Unknown { name: "sse9".into() }));
    }

    #[test]
    fn available_levels_are_a_prefix_and_can_be_chosen() {
        let available = Level::available();
        assert_eq!(available, Level::ALL[..available.len()]);
        for level in Level::ALL {
            let expected = if available.contains(&level) {
                Ok(level)
            } else {
                Err(LevelError::Missing { level, highest: *available.last().unwrap() })
            };
            assert_eq!(Level::choose(level.name()), expected);
        }
    }
}
