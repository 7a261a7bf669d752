/*
 * The parts of opening that checking a store needs as well.
 */
#pragma once

#include "store/core.h"

#define STORE_FORMAT_VERSION 2u
#define STORE_FORMAT_OLDEST 1u /* pieces without checksums */

/* In a transaction: say that this index is one of this version. */
int store_open_write_format(struct store_db_txn *txn, void *ctx, struct err *err);
/* In a transaction: the version that it says, 0 if it says nothing, ERR_UNSUPPORTED if it is not known here. */
int store_open_check_format(struct store_db_txn *txn, void *ctx, struct err *err);
