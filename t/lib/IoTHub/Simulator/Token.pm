# Copyright (C) the ngx_http_iothub_module authors

# SAS tokens: reading one, and checking it for one request.
#
# https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-sas

package IoTHub::Simulator::Token;

use v5.36;
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_base64);
use Exporter qw(import);

our @EXPORT_OK = qw(token_parse token_check percent_decode);

use constant {
    CLOCK_SKEW => 300,
    CACHE_MAX  => 10_000,
};

# A token comes with thousands of requests, so both what it says and its
# signature under a key are kept.

my (%PARSED, %SIGNATURE);


# Returns undef where an escape is broken.

sub percent_decode($text) {
    return undef if $text =~ /%(?![0-9A-Fa-f]{2})/;
    $text =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
    return $text;
}


sub form_decode($text) {
    $text =~ tr/+/ /;
    return percent_decode($text);
}


# Returns { sr, sig, se, skn, scope }, with scope the segments that sr names,
# or undef where the value is no token.  All but sr is decoded; sr stays as
# it was sent, as those bytes were signed.

sub token_parse($value) {
    return $PARSED{$value} if exists $PARSED{$value};

    %PARSED = () if keys %PARSED >= CACHE_MAX;
    return $PARSED{$value} = parse($value);
}


sub parse($value) {
    my ($scheme, $list, @more) = split /\s+/, $value;
    return undef
        if @more || !defined $list || $scheme ne 'SharedAccessSignature';

    my %field;
    for my $pair (split /&/, $list) {
        next if $pair eq '';
        my ($name, $text) = $pair =~ /^([^=]+)=(.*)\z/s or return undef;
        $name = lc $name;
        return undef if exists $field{$name};
        $field{$name} = $name eq 'sr' ? $text : form_decode($text);
        return undef unless defined $field{$name};
    }

    for my $name (qw(sr sig se)) {
        return undef unless length($field{$name} // '');
    }
    return undef unless $field{se} =~ /^[0-9]{1,15}\z/;

    my $resource = percent_decode($field{sr}) // return undef;
    $resource =~ s{/\z}{};
    $field{scope} = [split m{/}, $resource, -1];

    return \%field;
}


# The hub's check in its order.  Of the argument:
#   hosts     names that the request was sent to, lower case
#   path      the decoded segments of its path, without the host
#   right     what the operation needs
#   device    the device, where the operation is for one
#   policies  the hub's policies
#   identity  the device's identity, or undef
#   now       seconds
# Returns (key, undef) with key 'primary', 'secondary' or 'device', or
# (undef, [code, text]).

sub token_check($token, %arg) {
    return refuse(401002, 'Unauthorized') unless $token;

    return refuse(401003, 'The token has expired.')
        if $token->{se} + CLOCK_SKEW < $arg{now};

    return refuse(401002, 'The token is for another resource.')
        unless covers($token->{scope}, $arg{hosts}, $arg{path});

    return defined $token->{skn}
        ? check_policy($token, %arg)
        : check_device($token, %arg);
}


sub check_policy($token, %arg) {
    my $policy = $arg{policies}->find($token->{skn})
        or return refuse(401002, 'Unauthorized');

    for my $which (qw(primary secondary)) {
        my $key = $policy->{keys}{$which} // next;
        next unless signature($token, $key) eq $token->{sig};

        return refuse(401002, "The policy lacks $arg{right}.")
            unless $policy->{rights}{ $arg{right} };
        return ($which, undef);
    }

    return refuse(401002, 'Unauthorized');
}


# A token without a policy's name is signed with the device's own key, and
# good for that device's own endpoints only.

sub check_device($token, %arg) {
    return refuse(401002, 'Unauthorized')
        unless $arg{right} eq 'DeviceConnect' && @{ $token->{scope} } >= 3;

    my $identity = $arg{identity}
        or return refuse(401003, "IotHub '$arg{hosts}[0]' does not contain"
            . " the specified device '$arg{device}'.");

    for my $key ($identity->signing_keys) {
        return ('device', undef) if signature($token, $key) eq $token->{sig};
    }

    return refuse(401002, 'Unauthorized');
}


sub refuse($code, $text) { return (undef, [$code, $text]) }


sub signature($token, $key) {
    my $signed = "$token->{sr}\n$token->{se}";
    my $cached = "$signed\0$key";

    my $known  = $SIGNATURE{$cached};
    return $known if defined $known;

    my $base64 = hmac_sha256_base64($signed, $key);
    $base64 .= '=' x (-length($base64) % 4);

    %SIGNATURE = () if keys %SIGNATURE >= CACHE_MAX;
    return $SIGNATURE{$cached} = $base64;
}


# A scope is a prefix by whole segments: host, host/devices, host/devices/id.
# SDKs differ in how they escape the id of a scope: once with the rest, or
# by itself and then again with the rest.

sub covers($scope, $hosts, $path) {
    my ($host, @segments) = @$scope;
    my $known = lc $host;

    return 0 unless grep { $_ eq $known } @$hosts;
    return 0 if @segments > @$path;

    for my $i (0 .. $#segments) {
        next if $segments[$i] eq $path->[$i];
        my $decoded = percent_decode($segments[$i]);
        return 0 unless defined $decoded && $decoded eq $path->[$i];
    }

    return 1;
}

1;
