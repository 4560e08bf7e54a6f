//! The table of functions.

use crate::ast::ValueType;

/// How many arguments a function takes beyond the ones it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variadic {
    /// Exactly as many as there are argument types.
    No,
    /// The last argument type may be left out, or be repeated until it stands this many times.
    UpTo(usize),
    /// The last argument type may be left out or repeated without end.
    Unlimited,
}

/// The signature of a function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Its name; case matters.
    pub name: &'static str,
    /// The types of its arguments.
    pub arg_types: &'static [ValueType],
    /// Whether the last argument is optional or repeated.
    pub variadic: Variadic,
    /// The type of its value.
    pub return_type: ValueType,
    /// Whether it has to be enabled.
    pub is_experimental: bool,
}

impl Function {
    /// Finds a function by its name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        FUNCTIONS.binary_search_by_key(&name, |f| f.name).ok().map(|i| &FUNCTIONS[i])
    }

    /// Returns all functions, by name.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        FUNCTIONS.iter()
    }

    /// Returns the least and the greatest number of arguments; `None` where there is no greatest.
    #[must_use]
    pub const fn arity(&self) -> (usize, Option<usize>) {
        let types = self.arg_types.len();
        match self.variadic {
            Variadic::No => (types, Some(types)),
            Variadic::UpTo(times) => (types.saturating_sub(1), Some(types.saturating_sub(1) + times)),
            Variadic::Unlimited => (types.saturating_sub(1), None),
        }
    }

    /// Returns the type the argument at an index must have.
    #[must_use]
    pub fn arg_type(&self, index: usize) -> Option<ValueType> {
        match self.variadic {
            Variadic::No => self.arg_types.get(index).copied(),
            Variadic::UpTo(_) | Variadic::Unlimited => {
                self.arg_types.get(index).or(self.arg_types.last()).copied()
            }
        }
    }

    const fn experimental(mut self) -> Self {
        self.is_experimental = true;
        self
    }
}

const V: ValueType = ValueType::Vector;
const M: ValueType = ValueType::Matrix;
const S: ValueType = ValueType::Scalar;
const T: ValueType = ValueType::String;

const fn new(
    name: &'static str,
    arg_types: &'static [ValueType],
    variadic: Variadic,
    return_type: ValueType,
) -> Function {
    Function { name, arg_types, variadic, return_type, is_experimental: false }
}

/// Every function of Prometheus 3.14, sorted by name.
pub static FUNCTIONS: &[Function] = &[
    new("abs", &[V], Variadic::No, V),
    new("absent", &[V], Variadic::No, V),
    new("absent_over_time", &[M], Variadic::No, V),
    new("acos", &[V], Variadic::No, V),
    new("acosh", &[V], Variadic::No, V),
    new("asin", &[V], Variadic::No, V),
    new("asinh", &[V], Variadic::No, V),
    new("atan", &[V], Variadic::No, V),
    new("atanh", &[V], Variadic::No, V),
    new("avg_over_time", &[M], Variadic::No, V),
    new("ceil", &[V], Variadic::No, V),
    new("changes", &[M], Variadic::No, V),
    new("clamp", &[V, S, S], Variadic::No, V),
    new("clamp_max", &[V, S], Variadic::No, V),
    new("clamp_min", &[V, S], Variadic::No, V),
    new("cos", &[V], Variadic::No, V),
    new("cosh", &[V], Variadic::No, V),
    new("count_over_time", &[M], Variadic::No, V),
    new("day_of_month", &[V], Variadic::UpTo(1), V),
    new("day_of_week", &[V], Variadic::UpTo(1), V),
    new("day_of_year", &[V], Variadic::UpTo(1), V),
    new("days_in_month", &[V], Variadic::UpTo(1), V),
    new("deg", &[V], Variadic::No, V),
    new("delta", &[M], Variadic::No, V),
    new("deriv", &[M], Variadic::No, V),
    new("double_exponential_smoothing", &[M, S, S], Variadic::No, V).experimental(),
    new("end", &[], Variadic::No, S).experimental(),
    new("exp", &[V], Variadic::No, V),
    new("first_over_time", &[M], Variadic::No, V),
    new("floor", &[V], Variadic::No, V),
    new("histogram_avg", &[V], Variadic::No, V),
    new("histogram_count", &[V], Variadic::No, V),
    new("histogram_fraction", &[S, S, V], Variadic::No, V),
    new("histogram_quantile", &[S, V], Variadic::No, V),
    new("histogram_quantiles", &[V, T, S, S], Variadic::UpTo(9), V).experimental(),
    new("histogram_stddev", &[V], Variadic::No, V),
    new("histogram_stdvar", &[V], Variadic::No, V),
    new("histogram_sum", &[V], Variadic::No, V),
    new("hour", &[V], Variadic::UpTo(1), V),
    new("idelta", &[M], Variadic::No, V),
    new("increase", &[M], Variadic::No, V),
    new("info", &[V, V], Variadic::UpTo(1), V).experimental(),
    new("irate", &[M], Variadic::No, V),
    new("label_join", &[V, T, T, T], Variadic::Unlimited, V),
    new("label_replace", &[V, T, T, T, T], Variadic::No, V),
    new("last_over_time", &[M], Variadic::No, V),
    new("ln", &[V], Variadic::No, V),
    new("log10", &[V], Variadic::No, V),
    new("log2", &[V], Variadic::No, V),
    new("mad_over_time", &[M], Variadic::No, V).experimental(),
    new("max_of", &[S, S], Variadic::No, S).experimental(),
    new("max_over_time", &[M], Variadic::No, V),
    new("min_of", &[S, S], Variadic::No, S).experimental(),
    new("min_over_time", &[M], Variadic::No, V),
    new("minute", &[V], Variadic::UpTo(1), V),
    new("month", &[V], Variadic::UpTo(1), V),
    new("pi", &[], Variadic::No, S),
    new("predict_linear", &[M, S], Variadic::No, V),
    new("present_over_time", &[M], Variadic::No, V),
    new("quantile_over_time", &[S, M], Variadic::No, V),
    new("rad", &[V], Variadic::No, V),
    new("range", &[], Variadic::No, S).experimental(),
    new("rate", &[M], Variadic::No, V),
    new("resets", &[M], Variadic::No, V),
    new("round", &[V, S], Variadic::UpTo(1), V),
    new("scalar", &[V], Variadic::No, S),
    new("sgn", &[V], Variadic::No, V),
    new("sin", &[V], Variadic::No, V),
    new("sinh", &[V], Variadic::No, V),
    new("sort", &[V], Variadic::No, V),
    new("sort_by_label", &[V, T], Variadic::Unlimited, V).experimental(),
    new("sort_by_label_desc", &[V, T], Variadic::Unlimited, V).experimental(),
    new("sort_desc", &[V], Variadic::No, V),
    new("sqrt", &[V], Variadic::No, V),
    new("start", &[], Variadic::No, S).experimental(),
    new("start_timestamp", &[V], Variadic::No, V).experimental(),
    new("stddev_over_time", &[M], Variadic::No, V),
    new("stdvar_over_time", &[M], Variadic::No, V),
    new("step", &[], Variadic::No, S).experimental(),
    new("sum_over_time", &[M], Variadic::No, V),
    new("tan", &[V], Variadic::No, V),
    new("tanh", &[V], Variadic::No, V),
    new("time", &[], Variadic::No, S),
    new("timestamp", &[V], Variadic::No, V),
    new("ts_of_first_over_time", &[M], Variadic::No, V).experimental(),
    new("ts_of_last_over_time", &[M], Variadic::No, V).experimental(),
    new("ts_of_max_over_time", &[M], Variadic::No, V).experimental(),
    new("ts_of_min_over_time", &[M], Variadic::No, V).experimental(),
    new("vector", &[S], Variadic::No, V),
    new("year", &[V], Variadic::UpTo(1), V),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_function_is_found() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        for function in FUNCTIONS {
            assert_eq!(Function::find(function.name), Some(function));
        }
        assert_eq!(Function::find("Rate"), None);
    }

    #[test]
    fn arities_and_argument_types_follow_the_signature() {
        for (name, arity, types) in [
            ("time", (0, Some(0)), vec![None]),
            ("round", (1, Some(2)), vec![Some(V), Some(S), Some(S)]),
            ("hour", (0, Some(1)), vec![Some(V)]),
            ("label_join", (3, None), vec![Some(V), Some(T), Some(T), Some(T), Some(T), Some(T)]),
            ("histogram_quantiles", (3, Some(12)), vec![Some(V), Some(T), Some(S), Some(S), Some(S)]),
            ("clamp", (3, Some(3)), vec![Some(V), Some(S), Some(S), None]),
        ] {
            let function = Function::find(name).expect("a function of the table");
            assert_eq!(function.arity(), arity, "{name}");
            for (i, expected) in types.into_iter().enumerate() {
                assert_eq!(function.arg_type(i), expected, "{name} {i}");
            }
        }
    }
}
