
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * target: hands a webhook over to the existing target.
 *
 * The original request goes on to another location of the same server, whose
 * answer is the sender's.  nginx forgets there what modules know of a
 * request; this room keeps it.
 */

#ifndef _NGX_HTTP_IOTHUB_TARGET_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_TARGET_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_iothub_outcome.h"


typedef struct {
    ngx_str_t    name;        /* @name, or the path of the URI */
    ngx_str_t    args;
    u_char      *file;        /* where it is configured */
    ngx_uint_t   line;
    unsigned     has_args:1;  /* they replace those of the webhook */
    unsigned     always:1;
} ngx_http_iothub_target_t;


/* The directive; at cmd->offset is a pointer, UNSET_PTR at first. */

char *ngx_http_iothub_target(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/*
 * Has the server of an iothub_pass, which stands in file:line, the location
 * that the target names?  In postconfiguration.  NGX_ERROR: no, and logged.
 */

ngx_int_t ngx_http_iothub_target_check(ngx_conf_t *cf,
    ngx_http_iothub_target_t *target, ngx_http_core_srv_conf_t *cscf,
    u_char *file, ngx_uint_t line);

/*
 * The location of the server to which the target leads, when all locations
 * are known.  NULL: there is none, which nginx serves from the server's root.
 */

ngx_http_core_loc_conf_t *ngx_http_iothub_target_location(
    ngx_http_iothub_target_t *target, ngx_http_core_srv_conf_t *cscf);

/* Is a webhook with this result the target's?  target may be NULL. */

ngx_uint_t ngx_http_iothub_target_wants(ngx_http_iothub_target_t *target,
    ngx_http_iothub_result_e result);

/*
 * Hands the request over and keeps data for it.  The target may have answered
 * when this returns.  Returns what the request is to be finalized with.
 */

ngx_int_t ngx_http_iothub_target_pass(ngx_http_request_t *r,
    ngx_http_iothub_target_t *target, void *data);

/* Was this very request handed over to this target before? */

ngx_uint_t ngx_http_iothub_target_passed(ngx_http_request_t *r,
    ngx_http_iothub_target_t *target);

/* What was kept for the request when it was last handed over, or NULL. */

void *ngx_http_iothub_target_data(ngx_http_request_t *r);


#endif /* _NGX_HTTP_IOTHUB_TARGET_H_INCLUDED_ */
