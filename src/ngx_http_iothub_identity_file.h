
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * identity_file: the table of identities as bytes, for the state file.  Pure,
 * as identity is.
 */


#ifndef _NGX_HTTP_IOTHUB_IDENTITY_FILE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_IDENTITY_FILE_H_INCLUDED_


#include "ngx_http_iothub_identity.h"


/*
 * Takes a piece of an export.  Returns NGX_OK, or anything else to stop.
 */

typedef ngx_int_t (*ngx_http_iothub_identity_write_pt)(void *data,
    const u_char *p, size_t len);


/*
 * Writes the table as bytes to the callback, in pieces of up to 4 KB, while
 * others may go on using it.  They hold the hash key: keep them as private
 * as the zone.  host is the hub the table is of, up to 1023 bytes.  Returns
 * NGX_OK, NGX_ERROR if host is too long, or what the callback returned.
 * Leases are not written.
 */
ngx_int_t ngx_http_iothub_identity_export(ngx_http_iothub_identity_shm_t *shm,
    const ngx_str_t *host, time_t now,
    ngx_http_iothub_identity_write_pt write, void *data);

/*
 * Fills an empty table, which nobody else uses yet, from the bytes of an
 * export, and takes over their hash key.  Times are moved on by the time
 * that has passed since.  Returns
 *
 *   NGX_OK        the table is as it was, less what ran out
 *   NGX_DECLINED  whole, but of another host, version, or size of table
 *   NGX_ERROR     damaged: cut short, changed, or never an export
 *
 * In the latter two cases the table is untouched: empty, with its own key.
 */
ngx_int_t ngx_http_iothub_identity_import(ngx_http_iothub_identity_shm_t *shm,
    const u_char *p, size_t len, const ngx_str_t *host, time_t now);


#endif /* _NGX_HTTP_IOTHUB_IDENTITY_FILE_H_INCLUDED_ */
