//! Values that copies share until one of them changes. Most nodes of a circuit read alike: repeated layers have one list of
//! variables and one of index maps between them, and telling that they are equal takes one comparison of pointers.

use rustc_hash::FxHashSet;
use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// A value that its clones share until one of them changes it.
#[derive(Default)]
pub struct Shared<T>(Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T> Shared<T> {
    /// Whether both are one value in memory; equal ones need not be.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Shared(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: Eq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || *self.0 == *other.0
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: Hash> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl<A, T: FromIterator<A>> FromIterator<A> for Shared<T> {
    fn from_iter<I: IntoIterator<Item = A>>(items: I) -> Self {
        T::from_iter(items).into()
    }
}

impl<'a, T> IntoIterator for &'a Shared<T>
where
    &'a T: IntoIterator,
{
    type Item = <&'a T as IntoIterator>::Item;
    type IntoIter = <&'a T as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        (&**self).into_iter()
    }
}

impl<'a, T: Clone> IntoIterator for &'a mut Shared<T>
where
    &'a mut T: IntoIterator,
{
    type Item = <&'a mut T as IntoIterator>::Item;
    type IntoIter = <&'a mut T as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        (&mut **self).into_iter()
    }
}

/// Values that were seen, one of each.
#[derive(Debug)]
pub struct Pool<T>(FxHashSet<Shared<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool(FxHashSet::default())
    }
}

impl<T: Eq + Hash> Pool<T> {
    /// The value that was seen first of those equal to `value`.
    pub fn share(&mut self, value: Shared<T>) -> Shared<T> {
        match self.0.get(&value) {
            Some(known) => known.clone(),
            None => {
                self.0.insert(value.clone());
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pool, Shared};

    #[test]
    fn copies_are_one_value_until_one_changes() {
        let first: Shared<Vec<u32>> = vec![1, 2].into();
        let mut second = first.clone();
        assert!(first.is_same(&second));
        second.push(3);
        assert_eq!((&*first, &*second), (&vec![1, 2], &vec![1, 2, 3]));
        second.pop();
        assert!(first == second && !first.is_same(&second), "equal, but not the same any more");
    }

    #[test]
    fn a_pool_holds_one_of_each() {
        let mut pool = Pool::default();
        let first = pool.share(Shared::from(vec![1, 2]));
        assert!(pool.share(vec![1, 2].into()).is_same(&first));
        assert_ne!(pool.share(vec![2, 1].into()), first);
    }
}
