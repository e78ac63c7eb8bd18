//! What threads share: atomics, locks, and values that are replaced as a whole. By the standard
//! library and arc-swap; under `--cfg loom`, by a model that runs through every order of events.

#[cfg(not(loom))]
mod real {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::Mutex;
    pub(crate) use std::sync::MutexGuard;
    pub(crate) use std::sync::atomic::{
        AtomicU16 as Word16, AtomicU32, AtomicU32 as Word32, AtomicU64 as Word64, AtomicUsize,
        fence,
    };

    pub(crate) use arc_swap::{ArcSwap, ArcSwapAny, ArcSwapOption, Guard};

    /// A word that has one writer.
    pub(crate) trait Own {
        type Value;

        /// As the only one who writes it finds it.
        fn own(&self) -> Self::Value;
    }

    macro_rules! own {
        ($($word:ty => $value:ty),*) => {$(
            impl Own for $word {
                type Value = $value;

                #[inline]
                fn own(&self) -> $value {
                    self.load(std::sync::atomic::Ordering::Relaxed)
                }
            }
        )*};
    }

    own!(Word16 => u16, Word32 => u32, Word64 => u64);

    /// A value as the only one who replaces it finds it.
    #[inline]
    pub(crate) fn own_value<V: arc_swap::RefCnt>(swap: &ArcSwapAny<V>) -> V {
        swap.load_full()
    }
}

#[cfg(loom)]
mod real {
    use std::ops::Deref;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicUsize, fence};

    /// A word that has one writer.
    pub(crate) trait Own {
        type Value;

        /// As the only one who writes it finds it.
        fn own(&self) -> Self::Value;
    }

    macro_rules! words {
        ($($name:ident($atomic:ident, $value:ty)),*) => {$(
            /// A word that loom follows. Its only writer looks at `written` instead: loom 0.7
            /// remembers the last access alone, so a writer that loads before it stores hides the
            /// readers before it, and orders in which these come later are left out.
            #[derive(Debug)]
            pub(crate) struct $name {
                word: loom::sync::atomic::$atomic,
                written: std::sync::atomic::$atomic,
            }

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    let word = loom::sync::atomic::$atomic::new(value);
                    Self { word, written: std::sync::atomic::$atomic::new(value) }
                }

                pub(crate) fn load(&self, ordering: Ordering) -> $value {
                    self.word.load(ordering)
                }

                pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                    self.word.store(value, ordering);
                    self.written.store(value, Ordering::Relaxed);
                }
            }

            impl Own for $name {
                type Value = $value;

                fn own(&self) -> $value {
                    self.written.load(Ordering::Relaxed)
                }
            }
        )*};
    }

    words!(Word16(AtomicU16, u16), Word32(AtomicU32, u32), Word64(AtomicU64, u64));

    /// A value as the only one who replaces it finds it: like a word, and for the same reason.
    pub(crate) fn own_value<V: Clone>(swap: &Swap<V>) -> V {
        let all = swap.all.lock().expect("a vector is read");
        all.last().expect("it began with one").clone()
    }

    /// A value that one writer at a time replaces. All there were are kept; which one holds is an
    /// atomic, with no more order than arc-swap promises.
    #[derive(Debug)]
    pub(crate) struct Swap<V> {
        all: std::sync::Mutex<Vec<V>>,
        current: AtomicUsize,
    }

    pub(crate) type ArcSwapAny<V> = Swap<V>;

    pub(crate) type ArcSwap<T> = Swap<Arc<T>>;

    pub(crate) type ArcSwapOption<T> = Swap<Option<Arc<T>>>;

    #[derive(Debug)]
    pub(crate) struct Guard<V>(V);

    impl<V> Deref for Guard<V> {
        type Target = V;

        fn deref(&self) -> &V {
            &self.0
        }
    }

    impl<V: Clone> Swap<V> {
        pub(crate) fn new(value: V) -> Self {
            Self { all: std::sync::Mutex::new(vec![value]), current: AtomicUsize::new(0) }
        }

        pub(crate) fn load(&self) -> Guard<V> {
            Guard(self.load_full())
        }

        pub(crate) fn load_full(&self) -> V {
            let current = self.current.load(Ordering::Acquire);
            self.all.lock().expect("a vector is read")[current].clone()
        }

        pub(crate) fn store(&self, value: V) {
            let last = {
                let mut all = self.all.lock().expect("a vector is read");
                all.push(value);
                all.len() - 1
            };
            self.current.store(last, Ordering::Release);
        }
    }

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self::new(Arc::new(value))
        }
    }

    impl<T> ArcSwapOption<T> {
        pub(crate) fn empty() -> Self {
            Self::new(None)
        }
    }

    impl<V: Clone + Default> Default for Swap<V> {
        fn default() -> Self {
            Self::new(V::default())
        }
    }
}

pub(crate) use real::*;

/// A size as it is, or small enough for those who look at every order of events.
pub(crate) const fn size(real: usize, interpreted: usize, modelled: usize) -> usize {
    match (cfg!(loom), cfg!(miri)) {
        (true, _) => modelled,
        (_, true) => interpreted,
        _ => real,
    }
}
