//! The floating-point mode of a run. Embedders come with flush-to-zero, other roundings or unmasked exceptions set, and
//! new threads inherit them; kernels promise the same bits everywhere, so every worker runs in the default mode and
//! hands the old one back.

#[cfg(target_arch = "x86_64")]
mod control {
    use std::arch::asm;

    /// Round to nearest even, subnormal numbers kept, all exceptions masked, no exception flag raised.
    pub(super) const DEFAULT: u32 = 0x1F80;

    /// The thread's control and status register of SSE, AVX and AVX-512 arithmetic.
    pub(super) fn read() -> u32 {
        let mut value = 0u32;
        // SAFETY: `stmxcsr` stores four bytes at the address it is given, which is that of a live local.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    /// Sets the thread's register.
    ///
    /// # Safety
    /// `value` is [`DEFAULT`], or was read from this register by this thread.
    pub(super) unsafe fn write(value: u32) {
        // SAFETY: `ldmxcsr` loads four bytes from a live local. No reserved bit is set, by the contract above, so it
        // does not fault. The default is the mode that compiled Rust assumes; any other value only restores what the
        // caller of the run had chosen.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, readonly)) };
    }
}

/// Holds the thread in the default floating-point mode while it lives, on x86-64; does nothing elsewhere.
pub(super) struct DefaultFloatState {
    #[cfg(target_arch = "x86_64")]
    previous: u32,
}

impl DefaultFloatState {
    /// Saves the mode of this thread and sets the default one.
    pub(super) fn enter() -> DefaultFloatState {
        #[cfg(target_arch = "x86_64")]
        {
            let previous = control::read();
            // SAFETY: this is the default value.
            unsafe { control::write(control::DEFAULT) };
            DefaultFloatState { previous }
        }
        #[cfg(not(target_arch = "x86_64"))]
        DefaultFloatState {}
    }
}

impl Drop for DefaultFloatState {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `enter` read the value on this thread: a guard is a local of one function, and never moves to another
        // thread.
        unsafe {
            control::write(self.previous);
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// Flush-to-zero and denormals-are-zero, as embedders set them.
    const FLUSHING: u32 = control::DEFAULT | 0x8040;

    #[test]
    fn a_run_is_in_the_default_mode_and_restores_the_callers() {
        let original = control::read();
        // SAFETY: only mode bits that every x86-64 processor has are set, and the arithmetic between here and the
        // restoration is behind `black_box`, in the mode under test.
        unsafe { control::write(FLUSHING) };
        let inside = {
            let _state = DefaultFloatState::enter();
            let subnormal = std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
            (control::read() & 0xFFC0, subnormal > 0.0)
        };
        let after = control::read();
        // SAFETY: the value was read from the register above.
        unsafe { control::write(original) };
        assert_eq!(inside, (control::DEFAULT, true));
        assert_eq!(after, FLUSHING);
    }

    #[test]
    fn the_callers_mode_comes_back_when_a_run_panics() {
        let original = control::read();
        // SAFETY: as in the test above; no arithmetic happens in between.
        unsafe { control::write(FLUSHING) };
        let outcome = std::panic::catch_unwind(|| {
            let _state = DefaultFloatState::enter();
            std::panic::resume_unwind(Box::new(()));
        });
        let after = control::read();
        // SAFETY: the value was read from the register above.
        unsafe { control::write(original) };
        assert!(outcome.is_err());
        assert_eq!(after, FLUSHING);
    }
}
