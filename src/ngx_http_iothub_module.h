
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * module: the configuration that the directives fill and the other rooms
 * read.
 */

#ifndef _NGX_HTTP_IOTHUB_MODULE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_MODULE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#define NGX_HTTP_IOTHUB_VERSION  "0.1.0"


#include "ngx_http_iothub_hub.h"
#include "ngx_http_iothub_signature.h"
#include "ngx_http_iothub_source.h"
#include "ngx_http_iothub_target.h"
#include "ngx_http_iothub_template.h"


typedef struct {
    ngx_array_t                      hubs;      /* ngx_http_iothub_hub_t *,
                                                   by name */
    ngx_array_t                      passes;    /* ngx_http_iothub_pass_t */
    ngx_array_t                      variables; /* indexes, reset by body */
    ngx_int_t                        request_id; /* index of nginx's own */
    ngx_http_iothub_source_t        *source;    /* where none is named */

    /* of webhooks without a known hub; there where an iothub_pass is */
    ngx_http_iothub_metrics_t       *metrics;
    ngx_uint_t                       sources;   /* that may have none: bits */
} ngx_http_iothub_main_conf_t;


/* iothub_secret: one header and the values that are accepted in it */

typedef struct {
    ngx_str_t                        header;    /* lower case */
    ngx_array_t                      secrets;
} ngx_http_iothub_secret_t;


typedef struct {
    ngx_str_t                        key;       /* iothub-app-NAME */
    ngx_str_t                        lowcase;
    ngx_http_complex_value_t         value;
} ngx_http_iothub_property_t;


typedef struct {
    ngx_http_complex_value_t        *pass;
    ngx_http_iothub_hub_t           *hub;       /* if found at start */

    ngx_http_iothub_source_t        *source;
    ngx_http_complex_value_t        *fields[NGX_HTTP_IOTHUB_OVERRIDES];
#if (NGX_PCRE)
    ngx_regex_t                     *device_pattern;
    ngx_str_t                        device_pattern_text;
#endif
    ngx_http_iothub_locator_t       *each;      /* NULL: as the source */
    ngx_http_complex_value_t        *create;
    ngx_array_t                     *match;     /* ngx_str_t */
    ngx_array_t                     *filters;   /* complex values */

    ngx_http_iothub_template_t      *message;
    ngx_uint_t                       data_as;
    ngx_http_complex_value_t        *content_type;
    ngx_http_complex_value_t        *content_encoding;
    ngx_array_t                     *properties;

    ngx_http_iothub_secret_t        *secret;    /* NULL: off or not set */
    ngx_flag_t                       secret_set;
    ngx_http_iothub_signature_t     *signature;

    ngx_msec_t                       deadline;  /* 0: the source's */
    ngx_uint_t                       accepted;
    ngx_uint_t                       rejected;
    ngx_http_iothub_target_t        *target;    /* NULL: none */

    ngx_uint_t                       status;    /* of iothub_status: format */
} ngx_http_iothub_loc_conf_t;


/* an iothub_pass and where it stands, checked when all hubs are known */

typedef struct {
    ngx_http_iothub_loc_conf_t      *conf;
    ngx_http_core_srv_conf_t        *server;
    ngx_http_core_loc_conf_t        *location;
    ngx_str_t                        name;      /* empty: a variable */
    u_char                          *file;
    ngx_uint_t                       line;
} ngx_http_iothub_pass_t;


extern ngx_module_t  ngx_http_iothub_module;


#endif /* _NGX_HTTP_IOTHUB_MODULE_H_INCLUDED_ */
