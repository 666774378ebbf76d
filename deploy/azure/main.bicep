// One Azure OpenAI account without keys, the one identity that may call it, and what watches both.
//   az deployment group create --resource-group RG --template-file deploy/azure/main.bicep --parameters deploy/azure/example.bicepparam
targetScope = 'resourceGroup'

import { deploymentType } from 'types.bicep'

@description('Where everything goes. The models must be offered there.')
param location string = resourceGroup().location

@description('Start of every name; 3 to 12 lower-case letters and digits.')
@minLength(3)
@maxLength(12)
param name string

@description('dev, test or prod: for the tags that Cost Management groups by.')
@allowed(['dev', 'test', 'prod'])
param environment string

@description('Who pays, for the tags.')
param costCenter string

@description('Who answers, for the tags.')
param owner string

@description('Model deployments. Their capacity is the ceiling that holds whatever the gateway does.')
param deployments deploymentType[]

@description('Issuer URL of the AKS cluster whose pods may act as the identity: az aks show --query oidcIssuerProfile.issuerUrl. Empty: no cluster; the identity is assigned to a virtual machine.')
param clusterIssuer string = ''

@description('Subnets that may reach the account\'s public address. Empty: any network, still only with the identity.')
param allowedSubnetIds string[] = []

@description('Subnet, in the region of location, that gets a private endpoint to the account. Empty: no private endpoint.')
param privateEndpointSubnetId string = ''

@description('Id of an existing private DNS zone privatelink.openai.azure.com. Empty: one is made, linked to the virtual network of privateEndpointSubnetId.')
param privateDnsZoneId string = ''

@description('Whether the account has a public address. Without one it is reached by its private endpoint only.')
param publicNetworkAccess 'Enabled' | 'Disabled' = empty(privateEndpointSubnetId) ? 'Enabled' : 'Disabled'

@description('Defender for AI on this account; needs the plan for AI services in Defender for Cloud. Without it the subscription\'s setting holds.')
param defenderForAI ('Enabled' | 'Disabled')?

@description('A whole month of everything in this resource group, in dollars; told at 50, 90 and 100 percent.')
param monthlyBudgetDollars int

@description('Where alerts go.')
param alertEmails string[]

@description('First day of the month of the first deployment, as yyyy-MM-01. Azure refuses to change it: later deployments name the same day.')
@minLength(10)
@maxLength(10)
param budgetStart string

var tags = {
  env: environment
  'cost-center': costCenter
  owner: owner
}

module identity 'modules/identity.bicep' = {
  name: 'identity'
  params: {
    name: '${name}-gateway'
    location: location
    tags: tags
    clusterIssuer: clusterIssuer
    // As in deploy/kubernetes.
    serviceAccount: 'system:serviceaccount:aoai-gateway:aoai-gateway'
  }
}

module openai 'modules/openai.bicep' = {
  name: 'openai'
  params: {
    name: '${name}-${uniqueString(resourceGroup().id)}'
    location: location
    tags: tags
    deployments: deployments
    allowedSubnetIds: allowedSubnetIds
    publicNetworkAccess: publicNetworkAccess
    defenderForAI: defenderForAI
  }
}

module private 'modules/private.bicep' = if (!empty(privateEndpointSubnetId)) {
  name: 'private'
  params: {
    name: '${name}-openai'
    location: location
    tags: tags
    // An output, so that the endpoint comes after the deployments: the account takes one change at a time.
    accountId: openai.outputs.id
    subnetId: privateEndpointSubnetId
    zoneId: privateDnsZoneId
  }
}

module access 'modules/access.bicep' = {
  name: 'access'
  params: {
    accountName: openai.outputs.name
    principalId: identity.outputs.principalId
  }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  params: {
    name: name
    location: location
    tags: tags
    accountName: openai.outputs.name
    alertEmails: alertEmails
    monthlyBudgetDollars: monthlyBudgetDollars
    budgetStart: budgetStart
  }
}

@description('For backends.endpoint in gateway.toml.')
output endpoint string = openai.outputs.endpoint

output accountId string = openai.outputs.id
output accountName string = openai.outputs.name

@description('For the annotation of the service account, or backends.identity.client_id on a virtual machine.')
output identityClientId string = identity.outputs.clientId

@description('For az vm identity assign --identities.')
output identityId string = identity.outputs.id
