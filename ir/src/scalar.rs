//! Scalar expressions: what a `map` computes for one position, from the values of its operands there.

use crate::Literal;
use serde::{Deserialize, Serialize};
use strang_runtime::{ElementType, Size};

/// An expression over the operands of a `map` at one position. It is typed from the bottom up: an operand has its element
/// type, `Index` and `Size` are i64, comparisons give `bool`; both sides of a binary operation have one type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScalarExpr {
    /// The value of an operand, by slot.
    Operand(u32),
    /// The position of an index variable of the node, as i64.
    Index(u32),
    /// A size, as i64.
    Size(Size),
    /// A number.
    Literal(Literal),
    /// A function of one value.
    Unary(Unary, Box<ScalarExpr>),
    /// A function of two values of one type.
    Binary(Binary, Box<ScalarExpr>, Box<ScalarExpr>),
    /// `Select(condition, a, b)`: `a` where the `bool` holds, else `b`.
    Select(Box<ScalarExpr>, Box<ScalarExpr>, Box<ScalarExpr>),
    /// The value in another type: floats round to nearest even, floats to integers truncate and saturate (NaN gives 0),
    /// integers to narrower integers keep the low bits, anything to `bool` is `!= 0`.
    Cast(ElementType, Box<ScalarExpr>),
}

macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $text)] $variant),* }

        impl $name {
            /// Every function of this kind.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The name in the text format.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }

            /// The function of a name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|function| function.name() == name)
            }
        }
    };
}

named! {
    /// Functions of one value. Where nothing else is said they take floats and give the same type.
    Unary {
        /// `-x`; integers wrap.
        Negate = "neg",
        /// `|x|`; integers wrap.
        Absolute = "abs",
        /// -1, 0 or 1 with the sign of x (floats and integers); NaN and zeros stay.
        Sign = "sign",
        /// Rounded down.
        Floor = "floor",
        /// Rounded up.
        Ceil = "ceil",
        /// Rounded to nearest, ties to even.
        Round = "round",
        /// Rounded towards zero.
        Truncate = "trunc",
        /// Square root.
        SquareRoot = "sqrt",
        /// `1 / sqrt(x)`, as that division.
        ReciprocalSquareRoot = "rsqrt",
        /// `1 / x`.
        Reciprocal = "reciprocal",
        /// e^x.
        Exp = "exp",
        /// `e^x - 1`.
        ExpMinusOne = "expm1",
        /// Natural logarithm.
        Log = "log",
        /// `log(1 + x)`.
        LogOnePlus = "log1p",
        /// Sine of radians.
        Sin = "sin",
        /// Cosine.
        Cos = "cos",
        /// Tangent.
        Tan = "tan",
        /// Inverse sine.
        Asin = "asin",
        /// Inverse cosine.
        Acos = "acos",
        /// Inverse tangent.
        Atan = "atan",
        /// Hyperbolic sine.
        Sinh = "sinh",
        /// Hyperbolic cosine.
        Cosh = "cosh",
        /// Hyperbolic tangent.
        Tanh = "tanh",
        /// Inverse hyperbolic sine.
        Asinh = "asinh",
        /// Inverse hyperbolic cosine.
        Acosh = "acosh",
        /// Inverse hyperbolic tangent.
        Atanh = "atanh",
        /// The error function.
        Erf = "erf",
        /// `1 / (1 + e^-x)`.
        Sigmoid = "sigmoid",
        /// `max(x, 0)` (floats and integers).
        Relu = "relu",
        /// `x/2 * (1 + erf(x / sqrt 2))`.
        Gelu = "gelu",
        /// `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`.
        GeluTanh = "gelu_tanh",
        /// `x * sigmoid(x)`.
        Silu = "silu",
        /// `log(1 + e^x)`.
        Softplus = "softplus",
        /// `x * tanh(softplus(x))`.
        Mish = "mish",
        /// `max(0, min(1, x/6 + 1/2))`.
        HardSigmoid6 = "hard_sigmoid",
        /// `x * hard_sigmoid(x)`.
        HardSwish = "hard_swish",
        /// Logical or bitwise complement (`bool` and integers).
        Not = "not",
        /// Whether x is NaN; gives `bool`.
        IsNan = "is_nan",
        /// Whether x is an infinity; gives `bool`.
        IsInfinite = "is_inf",
    }
}

named! {
    /// Functions of two values of one type, which is the type of the result except for comparisons.
    Binary {
        /// Sum; integers wrap.
        Add = "add",
        /// Difference; integers wrap.
        Subtract = "sub",
        /// Product; integers wrap.
        Multiply = "mul",
        /// Quotient; integers truncate, by zero give 0, and the smallest by -1 wraps.
        Divide = "div",
        /// What truncating division leaves (the sign of the first; floats as C's fmod; integers by zero give 0).
        Remainder = "rem",
        /// What flooring division leaves (the sign of the second; integers by zero give 0).
        Modulo = "mod",
        /// Power; integers wrap, negative exponents truncate the quotient.
        Power = "pow",
        /// The smaller; NaN if one is NaN, -0 before +0.
        Minimum = "min",
        /// The larger; NaN if one is NaN, +0 after -0.
        Maximum = "max",
        /// Logical or bitwise and (`bool` and integers).
        And = "and",
        /// Logical or bitwise or.
        Or = "or",
        /// Logical or bitwise exclusive or.
        Xor = "xor",
        /// Bits shifted up (integers; by the width or more gives 0).
        ShiftLeft = "shl",
        /// Bits shifted down (integers, arithmetic for signed ones; by the width or more as by the width).
        ShiftRight = "shr",
        /// Whether equal; gives `bool`.
        Equal = "eq",
        /// Whether different; gives `bool`.
        NotEqual = "ne",
        /// Whether less; gives `bool`.
        Less = "lt",
        /// Whether less or equal; gives `bool`.
        LessOrEqual = "le",
        /// Whether greater; gives `bool`.
        Greater = "gt",
        /// Whether greater or equal; gives `bool`.
        GreaterOrEqual = "ge",
    }
}

impl Binary {
    /// Whether the result is `bool` whatever the operands are.
    pub const fn is_comparison(self) -> bool {
        use Binary::*;
        matches!(self, Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual)
    }

    /// Whether the operands may change places.
    pub const fn is_commutative(self) -> bool {
        use Binary::*;
        matches!(self, Add | Multiply | Minimum | Maximum | And | Or | Xor | Equal | NotEqual)
    }
}

impl Unary {
    /// Whether the result is `bool` whatever the operand is.
    pub const fn is_predicate(self) -> bool {
        matches!(self, Unary::IsNan | Unary::IsInfinite)
    }

    /// Whether integers are accepted as well as floats.
    pub const fn accepts(self, element: ElementType) -> bool {
        use Unary::*;
        match self {
            Negate | Absolute | Sign | Relu => element.is_float() || element.is_integer(),
            Not => !element.is_float(),
            _ => element.is_float(),
        }
    }
}

impl ScalarExpr {
    /// A function of one value.
    pub fn unary(function: Unary, operand: ScalarExpr) -> Self {
        ScalarExpr::Unary(function, Box::new(operand))
    }

    /// A function of two values.
    pub fn binary(function: Binary, left: ScalarExpr, right: ScalarExpr) -> Self {
        ScalarExpr::Binary(function, Box::new(left), Box::new(right))
    }

    /// A choice between two values.
    pub fn select(condition: ScalarExpr, yes: ScalarExpr, no: ScalarExpr) -> Self {
        ScalarExpr::Select(Box::new(condition), Box::new(yes), Box::new(no))
    }

    /// The value in another type.
    pub fn cast(element: ElementType, value: ScalarExpr) -> Self {
        ScalarExpr::Cast(element, Box::new(value))
    }

    /// The function of one operand: `map exp : %a`.
    pub fn unary_map(function: Unary) -> Self {
        Self::unary(function, ScalarExpr::Operand(0))
    }

    /// The function of two operands: `map add : %a, %b`.
    pub fn binary_map(function: Binary) -> Self {
        Self::binary(function, ScalarExpr::Operand(0), ScalarExpr::Operand(1))
    }

    /// The type of the value, or what disagrees.
    ///
    /// # Errors
    /// A text that names the function and the types it was given.
    pub fn element(&self, operands: &[ElementType]) -> Result<ElementType, String> {
        match self {
            ScalarExpr::Operand(slot) => operands
                .get(*slot as usize)
                .copied()
                .ok_or_else(|| format!("`${slot}` is not an operand: there are {}", operands.len())),
            ScalarExpr::Index(_) | ScalarExpr::Size(_) => Ok(ElementType::I64),
            ScalarExpr::Literal(literal) => Ok(literal.element),
            ScalarExpr::Unary(function, operand) => {
                let element = operand.element(operands)?;
                if !function.accepts(element) {
                    return Err(format!("`{}` does not take {element}", function.name()));
                }
                Ok(if function.is_predicate() { ElementType::Bool } else { element })
            }
            ScalarExpr::Binary(function, left, right) => {
                use Binary::*;
                let (left, right) = (left.element(operands)?, right.element(operands)?);
                if left != right {
                    return Err(format!("`{}` takes two values of one type, not {left} and {right}", function.name()));
                }
                let accepted = match function {
                    And | Or | Xor => !left.is_float(),
                    ShiftLeft | ShiftRight => left.is_integer(),
                    Equal | NotEqual | Minimum | Maximum => true,
                    _ => left != ElementType::Bool,
                };
                if !accepted {
                    return Err(format!("`{}` does not take {left}", function.name()));
                }
                Ok(if function.is_comparison() { ElementType::Bool } else { left })
            }
            ScalarExpr::Select(condition, yes, no) => {
                let (condition, yes, no) =
                    (condition.element(operands)?, yes.element(operands)?, no.element(operands)?);
                if condition != ElementType::Bool {
                    return Err(format!("`select` chooses by a bool, not by {condition}"));
                }
                if yes != no {
                    return Err(format!("`select` chooses between values of one type, not {yes} and {no}"));
                }
                Ok(yes)
            }
            ScalarExpr::Cast(element, value) => value.element(operands).map(|_| *element),
        }
    }

    /// Calls `visit` on this expression and all parts of it, outermost first.
    pub fn visit(&self, visit: &mut dyn FnMut(&ScalarExpr)) {
        visit(self);
        match self {
            ScalarExpr::Operand(_) | ScalarExpr::Index(_) | ScalarExpr::Size(_) | ScalarExpr::Literal(_) => {}
            ScalarExpr::Unary(_, a) | ScalarExpr::Cast(_, a) => a.visit(visit),
            ScalarExpr::Binary(_, a, b) => {
                a.visit(visit);
                b.visit(visit);
            }
            ScalarExpr::Select(a, b, c) => {
                a.visit(visit);
                b.visit(visit);
                c.visit(visit);
            }
        }
    }

    /// The expression with its leaves (operands, indices, sizes, literals) replaced.
    pub fn replace_leaves(&self, replace: &mut dyn FnMut(&ScalarExpr) -> ScalarExpr) -> ScalarExpr {
        match self {
            ScalarExpr::Operand(_) | ScalarExpr::Index(_) | ScalarExpr::Size(_) | ScalarExpr::Literal(_) => {
                replace(self)
            }
            ScalarExpr::Unary(function, a) => Self::unary(*function, a.replace_leaves(replace)),
            ScalarExpr::Cast(element, a) => Self::cast(*element, a.replace_leaves(replace)),
            ScalarExpr::Binary(function, a, b) => {
                Self::binary(*function, a.replace_leaves(replace), b.replace_leaves(replace))
            }
            ScalarExpr::Select(a, b, c) => {
                Self::select(a.replace_leaves(replace), b.replace_leaves(replace), c.replace_leaves(replace))
            }
        }
    }
}
