//! Activations as types: a function pointer or a closure may be compiled apart from its caller, without the instruction
//! set that the caller is compiled for, and then costs a hundred times its arithmetic.

use crate::kernels::lanes::Lanes;
use crate::kernels::math;

/// A function of one number.
pub(crate) trait Curve: Copy {
    /// Of 16 numbers at once.
    fn of<V: Lanes>(self, x: V) -> V;
}

macro_rules! curves {
    ($($name:ident $(($($parameter:ident),*))? = $function:expr;)*) => {$(
        #[derive(Clone, Copy)]
        pub(crate) struct $name $(($(pub(crate) curves!(@type $parameter)),*))?;
        impl Curve for $name {
            #[inline(always)]
            fn of<V: Lanes>(self, x: V) -> V {
                $( let $name($($parameter),*) = self; )?
                $function(x $($(, V::splat($parameter))*)?)
            }
        }
    )*};
    (@type $parameter:ident) => { f32 };
}

#[inline(always)]
fn identity<V>(x: V) -> V {
    x
}

curves! {
    Identity = identity;
    Relu = math::relu;
    Clip(low, high) = math::clip;
    LeakyRelu(slope) = math::leaky_relu;
    HardSwish = math::hard_swish;
    Sigmoid = math::sigmoid;
    Tanh = math::tanh;
    Silu = math::silu;
    Gelu = math::gelu;
    GeluTanh = math::gelu_tanh;
}
