
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * source: the presets for senders.  A row of one table says where the fields
 * of a sender's webhooks lie, by which methods they come, and how long the
 * sender waits: adding a sender is adding a row.
 */

#ifndef _NGX_HTTP_IOTHUB_SOURCE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_SOURCE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_iothub_webhook.h"


typedef enum {
    NGX_HTTP_IOTHUB_DEVICE_ID = 0,
    NGX_HTTP_IOTHUB_EVENT,
    NGX_HTTP_IOTHUB_DATA,
    NGX_HTTP_IOTHUB_PUBLISHED_AT,
    NGX_HTTP_IOTHUB_MESSAGE_ID,

    /* up to here, a directive overrides the field */

    NGX_HTTP_IOTHUB_OVERRIDES,
    NGX_HTTP_IOTHUB_FW_VERSION = NGX_HTTP_IOTHUB_OVERRIDES,
    NGX_HTTP_IOTHUB_FIELDS
} ngx_http_iothub_field_e;


/* how many presets there are */

#define NGX_HTTP_IOTHUB_SOURCES  9


/* the message is Particle's own; else it is the sender's body */
#define NGX_HTTP_IOTHUB_SOURCE_PARTICLE    0x01

/* a body of any type is taken */
#define NGX_HTTP_IOTHUB_SOURCE_ANY_TYPE    0x02

/* the body may be an array of events */
#define NGX_HTTP_IOTHUB_SOURCE_ARRAY       0x04

/* the first webhook of an Event Grid subscription asks who is there */
#define NGX_HTTP_IOTHUB_SOURCE_VALIDATION  0x08

/* of types that start with application/cloudevents, only JSON is read */
#define NGX_HTTP_IOTHUB_SOURCE_ENVELOPE    0x10


typedef struct ngx_http_iothub_source_s  ngx_http_iothub_source_t;

struct ngx_http_iothub_source_s {
    ngx_str_t                   name;
    ngx_uint_t                  methods;    /* NGX_HTTP_POST|... */
    ngx_str_t                   allow;      /* the same, for Allow */
    ngx_msec_t                  deadline;
    ngx_msec_t                  patience;   /* the sender's; 0: not known */
    off_t                       most;       /* that it sends; 0: not known */

    ngx_uint_t                  flags;
    ngx_uint_t                  rejected;   /* default of iothub_rejected */

    /* NULL, or where an array of events may be */
    ngx_http_iothub_locator_t  *each;

    ngx_uint_t                  n;          /* its place among all */

    /* private */
    const struct ngx_http_iothub_source_row_s  *row;
    ngx_array_t                *parts;      /* of each field */
};


/*
 * Finds a preset by its name and makes it ready for lookups, from the pool.
 * NULL if there is none, or no memory.
 */

ngx_http_iothub_source_t *ngx_http_iothub_source_get(ngx_pool_t *pool,
    ngx_str_t *name);

/* The name of the preset in that place. */

const ngx_str_t *ngx_http_iothub_source_name(ngx_uint_t n);

/* The names of all presets, for a message: "a", "b", or "c". */

extern const char  ngx_http_iothub_source_names[];

/* Does the preset say where the field lies? */

ngx_uint_t ngx_http_iothub_source_has(ngx_http_iothub_source_t *source,
    ngx_http_iothub_field_e field);

/*
 * Are the fields in headers, and the body only the data?  1 for a CloudEvent
 * in binary mode, whose header function is set, else 0.
 */

ngx_uint_t ngx_http_iothub_source_by_header(ngx_http_iothub_source_t *source,
    ngx_http_iothub_webhook_t *wh);

/*
 * Finds a field of a webhook.  What is found as null was not sent.
 *
 * NGX_OK; NGX_DECLINED if it is not there; NGX_ABORT and wh->reason if it
 * lies in a malformed query string; NGX_ERROR if there is no memory.  The
 * value's text may have to be decoded, see ngx_http_iothub_webhook_text().
 */

ngx_int_t ngx_http_iothub_source_find(ngx_http_iothub_source_t *source,
    ngx_http_iothub_field_e field, ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_value_t *value);


#endif /* _NGX_HTTP_IOTHUB_SOURCE_H_INCLUDED_ */
