# Copyright (C) the ngx_http_iothub_module authors

# HTTP/1.1 requests, from bytes.

package IoTHub::Simulator::Request;

use v5.36;
use strict;
use warnings;

use Exporter qw(import);
use Time::HiRes qw(time);

use IoTHub::Simulator::Token qw(percent_decode);

our @EXPORT_OK = qw(parse_head read_body);

use constant BODY_MAX => 4 * 1024 * 1024;

my $TOKEN = qr/[!#\$%&'*+\-.^_`|~A-Za-z0-9]+/;


# Reads a head, without its empty line.  Returns (request, undef), or
# (request, [status, title]) with as much of a request as there is.

sub parse_head($head) {
    my ($line, @lines) = split /\r\n/, $head;

    my $request = {
        time    => time,
        method  => '',
        uri     => '',
        path    => '',
        query   => {},
        headers => {},
        list    => [],
        body    => '',
        op      => 'other',
        device  => undef,
    };

    my ($method, $uri, $minor) =
        ($line // '') =~ m{^($TOKEN) (\S+) HTTP/1\.([01])\z}
        or return ($request, [400, 'Bad Request']);
    @$request{qw(method uri)} = ($method, $uri);

    my $headers = $request->{headers};
    for my $field (@lines) {
        my ($name, $value) = $field =~ /^($TOKEN):[ \t]*(.*?)[ \t]*\z/s
            or return ($request, [400, 'Bad Request - Invalid Header']);
        return ($request, [400, 'Bad Request - Invalid Header'])
            if $value =~ /[\x00-\x08\x0a-\x1f\x7f]/;

        push @{ $request->{list} }, [$name, $value];
        my $known = lc $name;
        $headers->{$known} = defined $headers->{$known}
            ? "$headers->{$known}, $value" : $value;
    }

    my $connection = lc($headers->{connection} // '');
    $request->{keep_alive} = $minor
        ? $connection !~ /\bclose\b/
        : $connection =~ /\bkeep-alive\b/;

    return ($request, read_uri($request) // read_framing($request));
}


sub read_uri($request) {
    my $invalid = [400, 'Bad Request - Invalid URL'];

    my $uri = $request->{uri} =~ s{^https?://[^/?]*}{}ir;
    my ($path, $query) = split /\?/, $uri, 2;
    return $invalid if $uri =~ /[^\x21-\x7e]|#/ || $path !~ m{^/};

    my @segments;
    for my $raw (split m{/}, substr($path, 1), -1) {
        my $segment = percent_decode($raw);
        return $invalid if !defined $segment || $segment =~ /\x00/;

        # as HTTP.sys does, before anything else sees the path
        next if $segment eq '.';
        if ($segment eq '..') {
            pop @segments;
            next;
        }
        push @segments, $segment;
    }

    $request->{segments} = \@segments;
    $request->{path}     = join '', map { "/$_" } @segments;

    for my $pair (split /&/, $query // '') {
        my ($name, $value) = map { percent_decode(tr/+/ /r) }
            split /=/, $pair, 2;
        return $invalid unless defined $name;
        $request->{query}{$name} //= $value // '';
    }
    return undef;
}


sub read_framing($request) {
    my $headers = $request->{headers};
    my $length  = $headers->{'content-length'};
    my $coding  = $headers->{'transfer-encoding'};

    if (defined $coding) {
        return [400, 'Bad Request'] if defined $length;
        return [501, 'Not Implemented'] unless lc $coding eq 'chunked';
        $request->{chunked} = 1;

    } elsif (defined $length) {
        return [400, 'Bad Request - Invalid Content Length']
            unless $length =~ /^[0-9]{1,15}\z/;
        return [413, 'Request Entity Too Large'] if $length > BODY_MAX;
        $request->{length} = $length;

    } else {
        return [411, 'Length Required']
            if $request->{method} =~ /^(?:POST|PUT)\z/
            && $request->{path} !~ m{^/simulator/};
        $request->{length} = 0;
    }

    my $expect = $headers->{expect};
    if (defined $expect) {
        return [417, 'Expectation Failed']
            unless lc $expect eq '100-continue';
        $request->{expects} = 1;
    }
    return undef;
}


# Moves what there is of the body out of the buffer.  Returns 1 when the body
# is whole, 0 when more is needed, undef when it is broken or too large.

sub read_body($request, $buffer) {
    return read_chunked($request, $buffer) if $request->{chunked};
    return 0 if length $$buffer < $request->{length};

    $request->{body} = substr $$buffer, 0, $request->{length}, '';
    return 1;
}


sub read_chunked($request, $buffer) {
    while (1) {
        my $end = index $$buffer, "\r\n";
        if ($end < 0) {
            return length $$buffer > 4096 ? undef : 0;
        }

        if ($request->{trailer}) {
            substr $$buffer, 0, $end + 2, '';
            return 1 if $end == 0;
            next;
        }

        my ($digits) = substr($$buffer, 0, $end)
            =~ /^([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?\z/s or return undef;
        my $size = hex $digits;

        if ($size == 0) {
            $request->{trailer} = 1;
            substr $$buffer, 0, $end + 2, '';
            next;
        }

        return undef if length($request->{body}) + $size > BODY_MAX;
        return 0 if length $$buffer < $end + 2 + $size + 2;
        return undef if substr($$buffer, $end + 2 + $size, 2) ne "\r\n";

        $request->{body} .= substr $$buffer, $end + 2, $size;
        substr $$buffer, 0, $end + 2 + $size + 2, '';
    }
}

1;
