
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


typedef struct {
    ngx_str_t                   name;
    ngx_uint_t                  methods;    /* NGX_HTTP_POST|... */
    ngx_str_t                   allow;      /* the same, for Allow */
    ngx_msec_t                  deadline;
    ngx_http_iothub_locator_t   fields[NGX_HTTP_IOTHUB_FIELDS];
} ngx_http_iothub_source_t;


/* Finds a preset by its name; NULL if there is none. */

const ngx_http_iothub_source_t *ngx_http_iothub_source_find(ngx_str_t *name);

/* The preset where none is named. */

const ngx_http_iothub_source_t *ngx_http_iothub_source_default(void);


#endif /* _NGX_HTTP_IOTHUB_SOURCE_H_INCLUDED_ */
