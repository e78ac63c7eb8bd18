//! Who gets a frame: routes, slots and plans, pure and shared by broker and gateway.
