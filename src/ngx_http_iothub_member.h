
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * member: where the members and elements of validated JSON are.
 *
 * A scanner that hands out the sender's bytes.  It believes that the text is
 * JSON, but never leaves it if it is not.  Pure, and without memory.
 */


#ifndef _NGX_HTTP_IOTHUB_MEMBER_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_MEMBER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* a member of an object, or an element of an array: then without a name */

typedef struct {
    ngx_str_t    name;             /* as sent, without the quotes */
    ngx_str_t    value;            /* as sent */
    ngx_uint_t   name_escaped;
    ngx_uint_t   value_escaped;
} ngx_http_iothub_member_t;


/*
 * Reads the next member or element of the object or array that pos is in,
 * with the comma before it.  NGX_OK; NGX_DONE at the end, with *pos behind
 * the bracket; NGX_ERROR if the text is no JSON.
 */

ngx_int_t ngx_http_iothub_next_member(u_char **pos, u_char *last,
    ngx_uint_t object, ngx_http_iothub_member_t *member);

/* is the member's name, decoded, this one? */

ngx_uint_t ngx_http_iothub_member_is(ngx_http_iothub_member_t *member,
    ngx_str_t *name);

/* from the first byte of a value to behind its last one, or NULL */

u_char *ngx_http_iothub_skip_value(u_char *p, u_char *last,
    ngx_uint_t *escaped);


#endif /* _NGX_HTTP_IOTHUB_MEMBER_H_INCLUDED_ */
