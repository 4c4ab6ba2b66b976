
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_target.h"


/* a request that was handed over; several share the pool of their main one */

typedef struct {
    ngx_http_request_t        *request;
    ngx_http_iothub_target_t  *target;
    void                      *data;
} ngx_http_iothub_handover_t;


static char *ngx_http_iothub_target_when(ngx_conf_t *cf,
    ngx_http_iothub_target_t *target);
static char *ngx_http_iothub_target_where(ngx_conf_t *cf,
    ngx_http_iothub_target_t *target);
static ngx_http_core_loc_conf_t *ngx_http_iothub_target_find_location(
    ngx_http_core_loc_conf_t *parent, ngx_str_t *uri, ngx_uint_t *final);
static ngx_http_core_loc_conf_t *ngx_http_iothub_target_find_static(
    ngx_http_location_tree_node_t *node, ngx_str_t *uri, ngx_uint_t *final);
static ngx_http_iothub_handover_t *ngx_http_iothub_target_find(
    ngx_http_request_t *r, ngx_http_iothub_target_t *target);
static void ngx_http_iothub_target_cleanup(void *data);


char *
ngx_http_iothub_target(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                       *rv;
    ngx_str_t                  *value;
    ngx_http_iothub_target_t  **slot, *target;

    slot = (ngx_http_iothub_target_t **) ((u_char *) conf + cmd->offset);

    if (*slot != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        *slot = NULL;
        return NGX_CONF_OK;
    }

    target = ngx_pcalloc(cf->pool, sizeof(ngx_http_iothub_target_t));
    if (target == NULL) {
        return NGX_CONF_ERROR;
    }

    target->file = cf->conf_file->file.name.data;
    target->line = cf->conf_file->line;

    rv = ngx_http_iothub_target_where(cf, target);

    if (rv == NGX_CONF_OK && cf->args->nelts == 3) {
        rv = ngx_http_iothub_target_when(cf, target);
    }

    *slot = target;

    return rv;
}


static char *
ngx_http_iothub_target_when(ngx_conf_t *cf, ngx_http_iothub_target_t *target)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_strcmp(value[2].data, "always") == 0) {
        target->always = 1;

    } else if (ngx_strcmp(value[2].data, "after") != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", write \"after\" or "
                           "\"always\"", &value[2]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_target_where(ngx_conf_t *cf, ngx_http_iothub_target_t *target)
{
    u_char     *p, *last;
    ngx_str_t  *value;

    value = cf->args->elts;
    target->name = value[1];

    p = target->name.data;
    last = p + target->name.len;

    if (!(target->name.len && (*p == '/' || (*p == '@' && p + 1 != last)))) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid target \"%V\", write \"@name\" or "
                           "\"/uri\" of the location that has the "
                           "proxy_pass, or \"off\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (ngx_strlchr(p, last, '$')) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "variable in target \"%V\", write \"@name\" and "
                           "choose by variables in that location",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    p = *p == '/' ? ngx_strlchr(p, last, '?') : NULL;

    if (p) {
        target->name.len = p - target->name.data;
        target->args.data = p + 1;
        target->args.len = last - target->args.data;
        target->has_args = 1;
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_iothub_target_check(ngx_conf_t *cf, ngx_http_iothub_target_t *target,
    ngx_http_core_srv_conf_t *cscf, u_char *file, ngx_uint_t line)
{
    if (target == NULL || target->name.data[0] != '@'
        || ngx_http_iothub_target_location(target, cscf))
    {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "unknown location \"%V\" in iothub_target, write "
                  "\"location %V { ... }\" in the server of the iothub_pass "
                  "that is in %s:%ui, in %s:%ui",
                  &target->name, &target->name, file, line, target->file,
                  target->line);

    return NGX_ERROR;
}


ngx_http_core_loc_conf_t *
ngx_http_iothub_target_location(ngx_http_iothub_target_t *target,
    ngx_http_core_srv_conf_t *cscf)
{
    ngx_uint_t                  final;
    ngx_http_core_loc_conf_t   *clcf, **clcfp;

    if (target->name.data[0] == '/') {
        clcf = cscf->ctx->loc_conf[ngx_http_core_module.ctx_index];
        return ngx_http_iothub_target_find_location(clcf, &target->name,
                                                    &final);
    }

    for (clcfp = cscf->named_locations; clcfp && *clcfp; clcfp++) {

        if ((*clcfp)->name.len == target->name.len
            && ngx_strncmp((*clcfp)->name.data, target->name.data,
                           target->name.len)
               == 0)
        {
            return *clcfp;
        }
    }

    return NULL;
}


/* as ngx_http_core_find_location() does, which needs a request */

static ngx_http_core_loc_conf_t *
ngx_http_iothub_target_find_location(ngx_http_core_loc_conf_t *parent,
    ngx_str_t *uri, ngx_uint_t *final)
{
    ngx_http_core_loc_conf_t   *found, *nested;
#if (NGX_PCRE)
    ngx_uint_t                  noregex;
    ngx_http_core_loc_conf_t  **clcfp;

    noregex = 0;
#endif

    *final = 0;

    found = ngx_http_iothub_target_find_static(parent->static_locations, uri,
                                               final);
    if (*final) {
        return found;
    }

    if (found) {

#if (NGX_PCRE)
        noregex = found->noregex;
#endif

        nested = ngx_http_iothub_target_find_location(found, uri, final);

        if (nested) {
            found = nested;
        }

        if (*final) {
            return found;
        }
    }

#if (NGX_PCRE)

    for (clcfp = parent->regex_locations; clcfp && *clcfp && !noregex;
         clcfp++)
    {
        if (ngx_regex_exec((*clcfp)->regex->regex, uri, NULL, 0) >= 0) {
            nested = ngx_http_iothub_target_find_location(*clcfp, uri, final);
            *final = 1;

            return nested ? nested : *clcfp;
        }
    }

#endif

    return found;
}


static ngx_http_core_loc_conf_t *
ngx_http_iothub_target_find_static(ngx_http_location_tree_node_t *node,
    ngx_str_t *uri, ngx_uint_t *final)
{
    u_char                    *name;
    size_t                     len;
    ngx_int_t                  rc;
    ngx_http_core_loc_conf_t  *found;

    found = NULL;
    name = uri->data;
    len = uri->len;

    while (node) {

        rc = ngx_filename_cmp(name, node->name, ngx_min(len, node->len));

        if (rc != 0) {
            node = rc < 0 ? node->left : node->right;

        } else if (len < node->len) {
            node = node->left;

        } else if (len == node->len && node->exact) {
            *final = 1;
            return node->exact;

        } else if (len == node->len) {
            return node->inclusive;

        } else if (node->inclusive) {
            found = node->inclusive;
            name += node->len;
            len -= node->len;
            node = node->tree;

        } else {
            node = node->right;
        }
    }

    return found;
}


ngx_uint_t
ngx_http_iothub_target_wants(ngx_http_iothub_target_t *target,
    ngx_http_iothub_result_e result)
{
    if (target == NULL || result == NGX_HTTP_IOTHUB_UNAUTHORIZED) {
        return 0;
    }

    return target->always || ngx_http_iothub_results[result].success;
}


ngx_int_t
ngx_http_iothub_target_pass(ngx_http_request_t *r,
    ngx_http_iothub_target_t *target, void *data)
{
    ngx_pool_cleanup_t          *cln;
    ngx_http_iothub_handover_t  *handover;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_iothub_handover_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    handover = cln->data;
    handover->request = r;
    handover->target = target;
    handover->data = data;

    cln->handler = ngx_http_iothub_target_cleanup;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "iothub target: \"%V\"", &target->name);

    /* the target's status is the sender's, not that of an error_page */

    r->err_status = 0;

    if (target->name.data[0] == '@') {
        return ngx_http_named_location(r, &target->name);
    }

    return ngx_http_internal_redirect(r, &target->name,
                                      target->has_args ? &target->args
                                                       : &r->args);
}


ngx_uint_t
ngx_http_iothub_target_passed(ngx_http_request_t *r,
    ngx_http_iothub_target_t *target)
{
    return target && ngx_http_iothub_target_find(r, target);
}


void *
ngx_http_iothub_target_data(ngx_http_request_t *r)
{
    ngx_http_iothub_handover_t  *handover;

    handover = ngx_http_iothub_target_find(r, NULL);

    return handover ? handover->data : NULL;
}


/* the last one to this target, or to any if it is NULL */

static ngx_http_iothub_handover_t *
ngx_http_iothub_target_find(ngx_http_request_t *r,
    ngx_http_iothub_target_t *target)
{
    ngx_pool_cleanup_t          *cln;
    ngx_http_iothub_handover_t  *handover;

    if (!r->internal && !r->filter_finalize) {
        return NULL;
    }

    for (cln = r->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler != ngx_http_iothub_target_cleanup) {
            continue;
        }

        handover = cln->data;

        if (handover->request == r
            && (target == NULL || handover->target == target))
        {
            return handover;
        }
    }

    return NULL;
}


/* there is nothing to clean up: by it, the handover is found again */

static void
ngx_http_iothub_target_cleanup(void *data)
{
    return;
}
