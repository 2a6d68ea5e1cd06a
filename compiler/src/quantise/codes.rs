//! Numbers as codes of few bits: `x ~ scale * (code - zero)`.

/// What turns codes into numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coding {
    /// The distance of the numbers of two codes; 0 where all numbers are 0.
    pub scale: f32,
    /// The code of 0.
    pub zero: i32,
    /// The least and the largest code.
    pub codes: (i32, i32),
}

impl Coding {
    /// Codes around 0: `-(2^(bits-1) - 1)` to `2^(bits-1) - 1`.
    pub fn symmetric(values: impl Iterator<Item = f32>, bits: u32) -> Self {
        let most = (1 << (bits - 1)) - 1;
        let largest = values.fold(0f32, |largest, value| largest.max(value.abs()));
        Coding { scale: largest / most as f32, zero: 0, codes: (-most, most) }
    }

    /// Codes from 0 to `2^bits - 1` over the range of the numbers and 0, which has a code of its own.
    pub fn affine(values: impl Iterator<Item = f32>, bits: u32) -> Self {
        let most = (1i32 << bits) - 1;
        let (low, high) = values.fold((0f32, 0f32), |(low, high), value| (low.min(value), high.max(value)));
        // Apart, so that the difference of large numbers is no infinity.
        let scale = high / most as f32 - low / most as f32;
        let zero = if scale > 0. { (-low / scale).round() as i32 } else { 0 };
        Coding { scale, zero: zero.clamp(0, most), codes: (0, most) }
    }

    /// The code of a number.
    pub fn code(&self, value: f32) -> i32 {
        if self.scale > 0. {
            let code = (value / self.scale).round_ties_even() as i32;
            code.saturating_add(self.zero).clamp(self.codes.0, self.codes.1)
        } else {
            self.zero
        }
    }

    /// The number of a code.
    pub fn value(&self, code: i32) -> f32 {
        self.scale * (code - self.zero) as f32
    }

    /// The number that a number becomes.
    pub fn rounded(&self, value: f32) -> f32 {
        self.value(self.code(value))
    }
}
