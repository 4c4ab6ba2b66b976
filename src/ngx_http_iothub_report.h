
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * report: what a hub's zone says at this moment, and text that grows while
 * it is written, for the formats of iothub_status.
 */

#ifndef _NGX_HTTP_IOTHUB_REPORT_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_REPORT_H_INCLUDED_


#include "ngx_http_iothub_module.h"
#include "ngx_http_iothub_throttle.h"


/* what one call of ngx_http_iothub_report_text() may write, bytes */

#define NGX_HTTP_IOTHUB_REPORT_LINE  16384


typedef struct {
    ngx_pool_t                        *pool;
    ngx_chain_t                       *out;      /* NULL: nothing written */
    ngx_chain_t                      **last;
    ngx_buf_t                         *buf;
    off_t                              size;
    unsigned                           failed:1; /* there was no memory */
} ngx_http_iothub_report_t;


typedef struct {
    ngx_uint_t                         closed;
    ngx_msec_t                         left;     /* ms */
    ngx_http_iothub_result_e           reason;
} ngx_http_iothub_report_gate_t;


typedef struct {
    ngx_http_iothub_hub_t             *hub;

    ngx_http_iothub_metrics_counts_t   counts;
    ngx_http_iothub_metrics_error_t    error;
    ngx_http_iothub_identity_stat_t    identities;
    ngx_http_iothub_report_gate_t      gates[NGX_HTTP_IOTHUB_GATES];
    ngx_msec_t                         backlog;  /* ms */
    ngx_uint_t                         key;      /* in use, 0 or 1 */

    /* why events would not be delivered now; NO_RESULT: they would */
    ngx_http_iothub_result_e           unusable;
} ngx_http_iothub_snapshot_t;


/* Reads what the hub's zone holds. */

void ngx_http_iothub_report_snapshot(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_snapshot_t *snapshot);

/* Why the hub is not usable; NO_RESULT: it is. */

ngx_http_iothub_result_e ngx_http_iothub_report_unusable(
    ngx_http_iothub_hub_t *hub);

void ngx_http_iothub_report_init(ngx_http_iothub_report_t *rep,
    ngx_pool_t *pool);

/* Appends, in the format of ngx_sprintf(). */

void ngx_cdecl ngx_http_iothub_report_text(ngx_http_iothub_report_t *rep,
    const char *fmt, ...);

/* Escapes a text for a JSON string.  NGX_OK, or NGX_ERROR and rep->failed. */

ngx_int_t ngx_http_iothub_report_escape(ngx_http_iothub_report_t *rep,
    ngx_str_t *string, ngx_str_t *text);

/* The text of a field of the last error: up to a zero, or all of it. */

ngx_str_t ngx_http_iothub_report_field(u_char *field, size_t size);

/* How many seconds ago; 0 if it is to come. */

time_t ngx_http_iothub_report_age(time_t when);


#endif /* _NGX_HTTP_IOTHUB_REPORT_H_INCLUDED_ */
