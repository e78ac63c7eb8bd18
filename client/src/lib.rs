//! Producers, gateway links and consumers for Waybill.
