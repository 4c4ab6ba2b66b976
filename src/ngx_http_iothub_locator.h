
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * locator: where a value is in a webhook, as the configuration writes it.
 *
 * JSON by RFC 6901 pointers, all else by name.  Pure: reads a text, and finds
 * nothing; webhook does.
 */


#ifndef _NGX_HTTP_IOTHUB_LOCATOR_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_LOCATOR_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef enum {
    NGX_HTTP_IOTHUB_LOCATOR_JSON = 0,
    NGX_HTTP_IOTHUB_LOCATOR_FORM,
    NGX_HTTP_IOTHUB_LOCATOR_QUERY,
    NGX_HTTP_IOTHUB_LOCATOR_HEADER,
    NGX_HTTP_IOTHUB_LOCATOR_BODY,
    NGX_HTTP_IOTHUB_LOCATOR_NAME
} ngx_http_iothub_locator_e;


/* one step of a pointer: a member's name, or an element's index */

typedef struct {
    ngx_str_t                  name;       /* decoded */
    ngx_int_t                  index;      /* or -1: not an index */
} ngx_http_iothub_step_t;


typedef struct {
    ngx_http_iothub_locator_e  kind;
    ngx_str_t                  name;       /* of all but JSON and BODY */
    ngx_http_iothub_step_t    *steps;      /* of JSON; none: the root */
    ngx_uint_t                 nsteps;
} ngx_http_iothub_locator_t;


/*
 * Reads a locator as written in the configuration: json:/pointer, form:name,
 * query:name, header:name, body; a text that starts with / is a pointer, any
 * other without a colon is a NAME: a member of the root object, else a pair
 * of the form, else a pair of the query string.  "json:" is the root.
 * The result points into the text; what has to be decoded is from the pool.
 *
 * NGX_OK; NGX_DECLINED and *reason if it is no locator; NGX_ERROR if there
 * is no memory.
 */

ngx_int_t ngx_http_iothub_locator_read(ngx_pool_t *pool, ngx_str_t *text,
    ngx_http_iothub_locator_t *locator, const char **reason);


#endif /* _NGX_HTTP_IOTHUB_LOCATOR_H_INCLUDED_ */
