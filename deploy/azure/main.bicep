// One Azure OpenAI account without keys, the one identity that may call it, and what watches both.
//   az deployment group create --resource-group RG --template-file deploy/azure/main.bicep --parameters deploy/azure/example.bicepparam
targetScope = 'resourceGroup'

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

@description('Model deployments. capacity is in thousands of tokens a minute: the ceiling that holds whatever the gateway does.')
param deployments deploymentType[]

@description('Issuer URL of the AKS cluster whose pods may act as the identity: az aks show --query oidcIssuerProfile.issuerUrl.')
param clusterIssuer string

@description('Networks that may reach the account. Empty: any network, still only with the identity.')
param allowedSubnetIds string[] = []

@description('A whole month of everything in this resource group, in dollars; told at 50, 90 and 100 percent.')
param monthlyBudgetDollars int

@description('Where alerts go.')
param alertEmails string[]

@description('First day of the month in which the budget starts, as yyyy-MM-01.')
param budgetStart string = utcNow('yyyy-MM-01')

@export()
type deploymentType = {
  @description('As callers name it.')
  name: string
  model: string
  version: string
  sku: 'Standard' | 'GlobalStandard' | 'DataZoneStandard'
  capacity: int
}

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

@description('For the annotation of the service account.')
output identityClientId string = identity.outputs.clientId
